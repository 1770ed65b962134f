//! Safe deposit boxes.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use holdfast_actors::rows::Refusal;
use holdfast_actors::secret_store::boxes::{CheckedBox, CreateBox, NewBox, categories, create_box};
use holdfast_actors::secret_store::faults::{Fault, Invalid};
use holdfast_actors::secret_store::reading::{list_boxes, read_box_by_id};
use holdfast_actors::secret_store::{Category, DepositBox};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::body::{BODY_BYTES_MAX, decode_json};
use crate::cerberus::answers::{Token, invalid, json as ok, problem, problem_for};
use crate::cerberus::{Cerberus, HOLDERS, MEMBERS};
use crate::distribute::DistributeBody;
use crate::node::Deed;
use crate::openapi::operation::{self as on, Operations, Query, Work};
use crate::openapi::schemas::Time;
use crate::problem::Problem;
use crate::reply::Format;
use crate::time::rfc3339_ms;

/// What can be done with boxes. Old clients write a slash at the end.
pub(super) fn operations() -> Operations<Cerberus> {
    let lists = || Work::new(list, MEMBERS, Query::None).action("box.list").gives::<Vec<BoxListed>>();
    let reads = || Work::new(read, MEMBERS, Query::None).action("box.read").gives::<BoxShown>();
    let makes = |path| {
        let work = Work::new(create, HOLDERS, Query::None).action("box.create");
        on::post(path, work, "Makes a safe deposit box")
            .takes::<BoxBody>()
            .gives::<BoxShown>(StatusCode::CREATED)
            .located()
    };
    Operations::under("/v2/safe-deposit-box")
        .with(on::get("", lists(), "Lists the boxes that the caller may see"))
        .with(makes(""))
        .with(on::get("/", lists(), "The same"))
        .with(makes("/"))
        .with(on::get("/{id}", reads(), "Shows a box"))
        .with(on::get("/{id}/", reads(), "The same"))
}

/// A box in a request. Members that Cerberus does not know are ignored, as it does; absent lists are empty.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct BoxBody {
    name: Option<String>,
    description: Option<String>,
    category_id: Option<String>,
    owner: Option<String>,
    user_group_permissions: Option<Vec<GroupBody>>,
    iam_principal_permissions: Option<Vec<PrincipalBody>>,
    distribute: Option<DistributeBody>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct GroupBody {
    name: Option<String>,
    role_id: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct PrincipalBody {
    iam_principal_arn: Option<String>,
    role_id: Option<String>,
}

impl BoxBody {
    fn check(self, categories: &[Category]) -> Result<CheckedBox, Invalid> {
        let distribute = match self.distribute.unwrap_or_default().parse() {
            Ok(distribute) => distribute,
            Err(message) => return Err(Fault::other(message).into()),
        };
        let groups = self.user_group_permissions.unwrap_or_default();
        let principals = self.iam_principal_permissions.unwrap_or_default();
        let new = NewBox {
            name: self.name.unwrap_or_default(),
            description: self.description,
            category_id: self.category_id.unwrap_or_default(),
            owner: self.owner.unwrap_or_default(),
            groups: groups.into_iter().map(|g| (g.name.unwrap_or_default(), g.role_id.unwrap_or_default())).collect(),
            principals: principals
                .into_iter()
                .map(|p| (p.iam_principal_arn.unwrap_or_default(), p.role_id.unwrap_or_default()))
                .collect(),
            distribute,
            ..NewBox::default()
        };
        new.check(categories)
    }
}

async fn create(State(cerberus): State<Cerberus>, token: Token, body: Body) -> Result<Response, Problem> {
    let node = &cerberus.node;
    let deed = Deed::of("box.create", "");
    let authorise =
        node.consult(token.get(), &deed, |view| Ok((view.caller.clone(), categories(view.rows, view.caller)?)));
    let (caller, categories) = authorise.map_err(problem)?;
    let body: BoxBody = decode_json(body, BODY_BYTES_MAX).await?;
    let deed = Deed::of("box.create", body.name.clone().unwrap_or_default());
    let checked = match body.check(&categories) {
        Ok(checked) => checked,
        Err(faults) => {
            let refusal = node.refuse(caller.realm, caller.actor(), &deed, faults.clone().into());
            return Err(if matches!(refusal, Refusal::Invalid(_)) { invalid(&faults) } else { problem(refusal) });
        }
    };
    let permission_ids = (0..checked.permissions()).map(|_| node.fresh_uuid()).collect();
    let cmd = CreateBox { caller: caller.clone(), checked, id: node.fresh_uuid(), permission_ids };
    let made = node.change(&caller, &deed, move |rows, now| create_box(&cmd, rows, now)).await;
    let made = made.map_err(|refusal| match refusal {
        Refusal::Exists(_) => invalid(&Fault::NAME_TAKEN.into()),
        Refusal::NotFound(_) => invalid(&Fault::CATEGORY_INVALID.into()),
        other => problem(other),
    })?;
    let mut response = Format::Json.reply(StatusCode::CREATED, &BoxShown::from(&made));
    if let Ok(location) = HeaderValue::from_str(&format!("/v2/safe-deposit-box/{}", made.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn read(State(cerberus): State<Cerberus>, token: Token, Path(id): Path<String>) -> Result<Response, Problem> {
    let deed = Deed::of("box.read", &id);
    let found = cerberus.node.consult(token.get(), &deed, |view| read_box_by_id(view.rows, view.caller, &id));
    Ok(ok(&BoxShown::from(&found.map_err(|refusal| problem_for(refusal, &id))?)))
}

async fn list(State(cerberus): State<Cerberus>, token: Token) -> Result<Response, Problem> {
    let deed = Deed::of("box.list", "");
    let found = cerberus.node.consult(token.get(), &deed, |view| list_boxes(view.rows, view.caller));
    let mut found = found.map_err(problem)?;
    found.sort_by(|a, b| (&a.category_id, &a.id).cmp(&(&b.category_id, &b.id)));
    Ok(ok(&found.iter().map(BoxListed::from).collect::<Vec<_>>()))
}

/// A box in a list.
#[derive(Serialize, JsonSchema)]
struct BoxListed {
    id: String,
    name: String,
    path: String,
    category_id: String,
}

impl From<&DepositBox> for BoxListed {
    fn from(of: &DepositBox) -> Self {
        Self { id: of.id.clone(), name: of.name.clone(), path: of.path(), category_id: of.category_id.clone() }
    }
}

/// A box.
#[derive(Serialize, JsonSchema)]
struct BoxShown {
    id: String,
    name: String,
    description: Option<String>,
    path: String,
    category_id: String,
    owner: String,
    user_group_permissions: Vec<GroupShown>,
    iam_principal_permissions: Vec<PrincipalShown>,
    distribute: DistributeBody,
    created_by: String,
    #[schemars(with = "Time")]
    created_ts: String,
    last_updated_by: String,
    #[schemars(with = "Time")]
    last_updated_ts: String,
}

#[derive(Serialize, JsonSchema)]
struct GroupShown {
    id: String,
    name: String,
    role_id: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct PrincipalShown {
    id: String,
    iam_principal_arn: String,
    role_id: &'static str,
}

impl From<&DepositBox> for BoxShown {
    fn from(of: &DepositBox) -> Self {
        let groups = of.user_group_permissions.iter();
        let principals = of.iam_principal_permissions.iter();
        Self {
            id: of.id.clone(),
            name: of.name.clone(),
            description: of.description.clone(),
            path: of.path(),
            category_id: of.category_id.clone(),
            owner: of.owner.clone(),
            user_group_permissions: groups
                .map(|given| GroupShown { id: given.id.clone(), name: given.name.clone(), role_id: given.role.id() })
                .collect(),
            iam_principal_permissions: principals
                .map(|given| PrincipalShown {
                    id: given.id.clone(),
                    iam_principal_arn: given.arn.clone(),
                    role_id: given.role.id(),
                })
                .collect(),
            distribute: DistributeBody::from(&of.distribute),
            created_by: of.created.by.clone(),
            created_ts: rfc3339_ms(of.created.at_us),
            last_updated_by: of.updated.by.clone(),
            last_updated_ts: rfc3339_ms(of.updated.at_us),
        }
    }
}

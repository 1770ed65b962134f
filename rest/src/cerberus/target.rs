//! `category/box/path…` behind `/v1/secret/`, and query members.

use holdfast_actors::rows::Refusal;
use holdfast_actors::secret_store::SecretPath;

use crate::uri::decoded;

/// Where a request points.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) category: String,
    pub(super) slug: String,
    /// Within the box; `None`: the box itself.
    pub(super) path: Option<SecretPath>,
    /// It ends with `/`, as folders do.
    pub(super) is_folder: bool,
}

impl Target {
    /// Takes the path of a request as it stands in the request line.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]: it does not even name a box; [`Refusal::Invalid`].
    pub(super) fn of(request_path: &str) -> Result<Self, Refusal> {
        let whole = request_path.strip_prefix("/v1/secret/").unwrap_or_default();
        let is_folder = whole.ends_with('/');
        let mut parts = Vec::new();
        for part in whole.trim_end_matches('/').split('/') {
            let part = decoded(part, false).filter(|part| !part.contains('/'));
            parts.push(part.ok_or_else(|| Refusal::Invalid("the path is not encoded as a path should be".to_owned()))?);
        }
        let mut parts = parts.into_iter();
        let (Some(category), Some(slug)) = (parts.next(), parts.next()) else {
            return Err(Refusal::NotFound("safe deposit box"));
        };
        let segments: Vec<String> = parts.collect();
        let path = if segments.is_empty() { None } else { Some(SecretPath::new(segments)?) };
        Ok(Self { category, slug, path, is_folder })
    }

    /// The secret it points at.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]: a folder or a box, which is no secret.
    pub(super) fn secret(&self) -> Result<&SecretPath, Refusal> {
        self.path.as_ref().filter(|_| !self.is_folder).ok_or(Refusal::NotFound("secret"))
    }

    pub(super) fn at(&self) -> (&str, &str) {
        (&self.category, &self.slug)
    }

    pub(super) fn owned_at(&self) -> (String, String) {
        (self.category.clone(), self.slug.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(segments: &[&str]) -> Option<SecretPath> {
        Some(SecretPath::new(segments.iter().map(|part| (*part).to_owned()).collect()).unwrap())
    }

    #[test]
    fn a_path_names_category_box_and_secret() {
        for (path, at, within, is_folder) in [
            ("/v1/secret/app/box", ("app", "box"), None, false),
            ("/v1/secret/app/box/", ("app", "box"), None, true),
            ("/v1/secret/app/box/a/b%20c", ("app", "box"), secret(&["a", "b c"]), false),
            ("/v1/secret/app/box/%C3%A4/", ("app", "box"), secret(&["ä"]), true),
            ("/v1/secret/app/box/a+b", ("app", "box"), secret(&["a+b"]), false),
        ] {
            let target = Target::of(path).unwrap();
            assert_eq!((target.at(), &target.path, target.is_folder), (at, &within, is_folder), "{path}");
        }
    }

    #[test]
    fn a_path_that_can_not_be_is_refused() {
        for bad in ["/v1/secret/app/box/a%2Fb", "/v1/secret/app/box/%", "/v1/secret/app/box/%ff", "/v1/secret/a/b/%0a"]
        {
            assert!(matches!(Target::of(bad), Err(Refusal::Invalid(_))), "{bad}");
        }
        for nothing in ["/v1/secret/", "/v1/secret/app", "/v1/secret/app/"] {
            assert!(matches!(Target::of(nothing), Err(Refusal::NotFound(_))), "{nothing}");
        }
    }
}

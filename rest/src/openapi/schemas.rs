//! Schemas of bodies: out of the types themselves, and out of the ones here for texts that have a form.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use crate::secret::{Reveal, SecretText};

/// Makes the schema of one type.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Of `T`.
pub(crate) fn of<T: JsonSchema>() -> SchemaOf {
    SchemaGenerator::subschema_for::<T>
}

/// The schemas of one document. A type looks different to who sends it (what has a default may be left out) and to who
/// gets it, so there are two generators.
pub(super) struct Schemas {
    requests: SchemaGenerator,
    replies: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            requests: settings().for_deserialize().into_generator(),
            replies: settings().for_serialize().into_generator(),
        }
    }

    pub(super) fn request(&mut self, of: SchemaOf) -> Value {
        of(&mut self.requests).to_value()
    }

    pub(super) fn reply(&mut self, of: SchemaOf) -> Value {
        of(&mut self.replies).to_value()
    }

    /// All that were referred to, by their names.
    ///
    /// # Panics
    /// Two types have one name, or a type of both directions looks different in them.
    pub(super) fn named(mut self) -> Map<String, Value> {
        let mut all = self.requests.take_definitions(true);
        for (name, schema) in self.replies.take_definitions(true) {
            let other = all.insert(name.clone(), schema.clone());
            assert!(other.is_none_or(|other| other == schema), "{name} is the name of two schemas: rename one");
        }
        let numbered = all.keys().find(|name| name.ends_with(|last: char| last.is_ascii_digit()));
        assert_eq!(numbered, None, "two types have one name: rename one");
        all
    }
}

/// A text of some form, for `#[schemars(with = ...)]`.
macro_rules! text {
    ($(#[$doc:meta])* $type:ident, $($schema:tt)*) => {
        $(#[$doc])*
        pub(crate) struct $type;

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($($schema)*)
            }
        }
    };
}

text!(
    /// RFC 3339 in UTC with microseconds.
    Time,
    { "type": "string", "format": "date-time" }
);
text!(
    /// What [`crate::time::parse_duration`] reads.
    DurationText,
    {
        "type": "string",
        "description": "A duration: whole numbers with y (365 d), d, h, m, s, ms, each once and in this order, as in 1h30m.",
        "pattern": "^([0-9]+y)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
        "minLength": 2,
    }
);
text!(
    /// 32 bytes.
    Digest,
    { "type": "string", "description": "32 bytes in hexadecimal.", "pattern": "^[0-9a-fA-F]{64}$" }
);
text!(
    /// Any JSON.
    Anything,
    {}
);

/// A secret that is sent.
impl JsonSchema for SecretText {
    fn schema_name() -> Cow<'static, str> {
        "SecretText".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "password" })
    }
}

/// A secret that is answered.
impl JsonSchema for Reveal {
    fn schema_name() -> Cow<'static, str> {
        "Reveal".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "password" })
    }
}

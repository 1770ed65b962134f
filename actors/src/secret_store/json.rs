//! Whether bytes are a JSON object, found out without a copy of what stands in it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Deepest nesting; deeper values hit the recursion limit of common parsers, ours included.
const DEPTH_MAX: usize = 64;

/// Whether `bytes` are exactly one JSON object, in UTF-8, nested no deeper than most readers can bear.
pub(super) fn is_object(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| is_shallow(bytes) && serde_json::from_str::<Object>(text).is_ok())
}

/// An object with whatever members.
struct Object;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Object)
    }
}

/// Counts brackets outside of strings.
fn is_shallow(bytes: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if DEPTH_MAX < depth {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_object_passes() {
        for good in ["{}", " {\"a\": 1}\n", "{\"a\":{\"b\":[null,true,\"x\"]}}", "{\"]]\":\"\\\"[[[\"}"] {
            assert!(is_object(good.as_bytes()), "{good}");
        }
        for bad in ["", "[]", "null", "\"{}\"", "{", "{} {}", "{\"a\"}", "{a:1}", "{\"a\":1,}", "{\"a\":\"\n\"}"] {
            assert!(!is_object(bad.as_bytes()), "{bad}");
        }
        assert!(!is_object(b"{\"a\":\"\xff\"}"));
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(is_object(nested(DEPTH_MAX - 1).as_bytes()));
        assert!(!is_object(nested(DEPTH_MAX).as_bytes()));
        assert!(!is_object(nested(200_000).as_bytes()));
    }
}

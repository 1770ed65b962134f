//! A secret taken apart into its members, and put together again, in memory that is erased.
//!
//! Each member's value stays the JSON text that stood there, so that nothing of a secret that another dialect wrote (long
//! numbers, nested values) changes when a neighbour of it is replaced.

use std::collections::BTreeMap;
use std::ops::Range;

use holdfast_protocol::secret::SecretBytes;
use zeroize::Zeroizing;

use crate::secret_store::json;

/// The members of a JSON object, each as JSON text.
#[derive(Debug, Default)]
pub struct Members(BTreeMap<String, SecretBytes>);

impl Members {
    /// Takes an object apart; `None` if it is none. Of a name that stands there twice the last one counts.
    pub fn parse(object: &[u8]) -> Option<Self> {
        if !json::is_object(object) {
            return None;
        }
        let mut members = BTreeMap::new();
        for (name, value) in spans(object) {
            let name: String = serde_json::from_slice(&object[name]).ok()?;
            members.insert(name, SecretBytes::new(object[value].to_vec()));
        }
        Some(Self(members))
    }

    /// Puts a text in place of what has this name.
    pub fn set_text(&mut self, name: &str, text: &str) {
        let mut json = Zeroizing::new(Vec::with_capacity(text.len() + text.len() / 8 + 16));
        quote(text, &mut json);
        self.0.insert(name.to_owned(), SecretBytes::new(std::mem::take(&mut *json)));
    }

    /// Puts all of `others` in place of what has their names.
    pub fn merge(&mut self, others: &Self) {
        let copies = others.0.iter().map(|(name, value)| (name.clone(), SecretBytes::new(value.expose().to_vec())));
        self.0.extend(copies);
    }

    /// Whether there is a member of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A member as text: what a text says, and of any other value its JSON.
    pub fn text(&self, name: &str) -> Option<Zeroizing<String>> {
        let json = self.0.get(name)?.expose();
        if json.first() == Some(&b'"') {
            return serde_json::from_slice::<String>(json).ok().map(Zeroizing::new);
        }
        std::str::from_utf8(json).ok().map(|text| Zeroizing::new(text.to_owned()))
    }

    /// All members as one object again.
    pub fn join(&self) -> SecretBytes {
        let bytes: usize = self.0.iter().map(|(name, value)| 2 * name.len() + value.expose().len() + 4).sum();
        let mut object = Zeroizing::new(Vec::with_capacity(bytes + 2));
        object.push(b'{');
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index != 0 {
                object.push(b',');
            }
            quote(name, &mut object);
            object.push(b':');
            object.extend_from_slice(value.expose());
        }
        object.push(b'}');
        SecretBytes::new(std::mem::take(&mut *object))
    }
}

/// Writes a JSON string.
fn quote(text: &str, into: &mut Vec<u8>) {
    into.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => into.extend_from_slice(b"\\\""),
            b'\\' => into.extend_from_slice(b"\\\\"),
            b'\n' => into.extend_from_slice(b"\\n"),
            0..0x20 => into.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            other => into.push(other),
        }
    }
    into.push(b'"');
}

/// Where names and values stand in what is known to be one whole object.
fn spans(object: &[u8]) -> Vec<(Range<usize>, Range<usize>)> {
    let mut spans = Vec::new();
    let mut at = object.iter().position(|byte| *byte == b'{').map_or(object.len(), |at| at + 1);
    while let Some(name_from) = next(object, at, |byte| byte == b'"') {
        let name = name_from..string_end(object, name_from);
        let colon = next(object, name.end, |byte| byte == b':').unwrap_or(object.len());
        let Some(from) = next(object, colon + 1, |byte| !byte.is_ascii_whitespace()) else { break };
        let to = value_end(object, from);
        spans.push((name, from..to));
        at = to;
    }
    spans
}

fn next(bytes: &[u8], from: usize, is: impl Fn(u8) -> bool) -> Option<usize> {
    bytes.iter().skip(from).position(|byte| is(*byte)).map(|at| from + at)
}

/// Behind the closing quotes of the string that begins at `from`.
fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate().skip(from + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

/// Behind the value that begins at `from`.
fn value_end(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return trimmed(bytes, from, at),
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' if depth == 0 => return trimmed(bytes, from, at),
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// A number or a word ends before the blanks that follow it.
fn trimmed(bytes: &[u8], from: usize, to: usize) -> usize {
    from + bytes[from..to].trim_ascii_end().len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn text(members: &Members, name: &str) -> Option<String> {
        members.text(name).map(|text| text.to_string())
    }

    #[test]
    fn members_are_told_apart_and_other_values_keep_their_text() {
        let object =
            " { \"a\" : \"x\\\"}\\u00e4\" ,\"n\":12345678901234567890123 , \"o\":{\"p\":[1,\"]\",{}]},\"\":null}\n";
        let members = Members::parse(object.as_bytes()).unwrap();
        assert_eq!(members.names().collect::<Vec<_>>(), ["", "a", "n", "o"]);
        for (name, expected) in
            [("a", "x\"}ä"), ("n", "12345678901234567890123"), ("o", "{\"p\":[1,\"]\",{}]}"), ("", "null")]
        {
            assert_eq!(text(&members, name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(text(&members, "b"), None);
        let joined = members.join();
        assert_eq!(
            std::str::from_utf8(joined.expose()).unwrap(),
            "{\"\":null,\"a\":\"x\\\"}\\u00e4\",\"n\":12345678901234567890123,\"o\":{\"p\":[1,\"]\",{}]}}"
        );
        assert!(Members::parse(b"[]").is_none() && Members::parse(b"{}").unwrap().names().next().is_none());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_taken_apart_is_put_together_again(
            of in prop::collection::btree_map(".{0,8}", value(), 0..6), blanks in any::<bool>(), put in ".{0,8}",
        ) {
            let mut of: serde_json::Map<String, Value> = of.into_iter().collect();
            let written = if blanks { serde_json::to_vec_pretty(&of) } else { serde_json::to_vec(&of) }.unwrap();
            let mut members = Members::parse(&written).unwrap();
            for (name, value) in &of {
                let expected = value.as_str().map_or_else(|| value.clone(), Value::from);
                let told = text(&members, name).unwrap();
                let told = if value.is_string() { Value::from(told) } else { serde_json::from_str(&told).unwrap() };
                prop_assert_eq!(told, expected);
            }
            members.set_text(&put, &put);
            of.insert(put.clone(), Value::from(put));
            let joined: Value = serde_json::from_slice(members.join().expose()).unwrap();
            prop_assert_eq!(joined, Value::Object(of));
        }
    }
}

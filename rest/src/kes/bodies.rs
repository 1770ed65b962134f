//! Bodies as KES' own decoder takes them: names of members in any case, unknown members left alone, whatever follows the
//! first value too; bytes in base64 with its padding. What is taken erases itself.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use base64::engine::general_purpose::STANDARD;
use base64::{Engine, decoded_len_estimate};
use holdfast_actors::distribute::Distribute;
use holdfast_actors::rows::Refusal;
use holdfast_protocol::secret::SecretBytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::fault::Fault;
use crate::distribute::DistributeBody;
use crate::secret::SecretText;

/// The members of a body that were asked for, as texts, in the order in which they were.
pub(super) struct Texts<const N: usize>([Option<SecretText>; N]);

impl<const N: usize> Texts<N> {
    /// Takes an object.
    ///
    /// # Errors
    /// It is none, or one of the members is no text.
    pub(super) fn of(body: &[u8], names: [&'static str; N]) -> Result<Self, Fault> {
        let mut decoder = serde_json::Deserializer::from_slice(body);
        Members(names).deserialize(&mut decoder).map_err(|_| Fault::BadBody)
    }

    /// Takes a list of at most `max` objects.
    ///
    /// # Errors
    /// As [`Texts::of`]; too many.
    pub(super) fn list_of(body: &[u8], names: [&'static str; N], max: usize) -> Result<Vec<Self>, Fault> {
        let mut decoder = serde_json::Deserializer::from_slice(body);
        let all = decoder.deserialize_seq(List { of: Members(names), max }).map_err(|_| Fault::BadBody)?;
        all.ok_or(Fault::TooManyCiphertexts)
    }

    /// A member as it was sent; empty if it was not.
    pub(super) fn text(&self, at: usize) -> &str {
        self.0.get(at).and_then(Option::as_ref).map_or("", SecretText::expose)
    }

    /// Whether it was sent.
    pub(super) fn has(&self, at: usize) -> bool {
        self.0.get(at).is_some_and(Option::is_some)
    }

    /// The bytes that a member means.
    ///
    /// # Errors
    /// It is no base64.
    pub(super) fn bytes(&self, at: usize) -> Result<SecretBytes, Fault> {
        let text = self.text(at);
        // Where it breaks off, what was decoded so far is erased with the rest.
        let mut bytes = Zeroizing::new(vec![0; decoded_len_estimate(text.len())]);
        let len = STANDARD.decode_slice(text, &mut bytes).map_err(|_| Fault::BadBody)?;
        bytes.truncate(len);
        Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
    }
}

/// Our own members of a body: of its first value, whatever else is in it.
///
/// # Errors
/// It is no such value.
pub(super) fn own<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(body)).map_err(|_| Fault::BadBody)
}

/// Where a key goes; nowhere, unless something was said.
///
/// # Errors
/// What is wrong with it.
pub(super) fn placement(said: Option<serde_json::Value>) -> Result<Distribute, Fault> {
    let Some(said) = said else { return Ok(Distribute::default()) };
    let body: Result<DistributeBody, _> = serde_json::from_value(said);
    let placed = body.map_err(|_| NO_PLACEMENT).and_then(|body| body.parse());
    placed.map_err(|why| Refusal::Invalid(why.to_owned()).into())
}

const NO_PLACEMENT: &str = r#"distribute: it is {"to": "none" | "all"} or {"sites": [..]}, with or without "offline""#;

#[derive(Clone, Copy)]
struct Members<const N: usize>([&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Members<N> {
    type Value = Texts<N>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Texts<N>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<N> {
    type Value = Texts<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    /// `null` is an object without members.
    fn visit_unit<E: Error>(self) -> Result<Texts<N>, E> {
        Ok(Texts(std::array::from_fn(|_| None)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts<N>, A::Error> {
        let mut found = std::array::from_fn(|_| None);
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match self.0.iter().position(|known| known.eq_ignore_ascii_case(&name)) {
                Some(at) => {
                    let text = map.next_value::<Option<SecretText>>()?;
                    if let (Some(text), Some(place)) = (text, found.get_mut(at)) {
                        *place = Some(text);
                    }
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Texts(found))
    }
}

struct List<const N: usize> {
    of: Members<N>,
    max: usize,
}

impl<'de, const N: usize> Visitor<'de> for List<N> {
    type Value = Option<Vec<Texts<N>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element_seed(self.of)? {
            all.push(one);
            if self.max < all.len() {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
        }
        Ok(Some(all))
    }
}

/// A body, for the documents.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "bodies are taken as KES' decoder takes them")]
pub(super) struct KeyBytes {
    /// 32 bytes in base64, and with `cipher`, as the newer profile has it.
    key: Option<String>,
    /// `AES256` or `ChaCha20`, or one of their long names.
    cipher: Option<String>,
    /// Alone, as the older one: 32 bytes in base64, of a key for AES-256.
    bytes: Option<String>,
    /// Ours: 32 bytes in base64, by which it makes HMACs; random unless given.
    hmac_key: Option<String>,
    /// Ours: when it was made, unless just now.
    created_at: Option<String>,
    /// Ours: who made it, unless the caller. Shown, and nothing else.
    created_by: Option<String>,
    /// Ours: the sites where it works.
    distribute: Option<DistributeBody>,
}

/// What is ours of a body that has members of KES.
#[derive(Deserialize)]
pub(super) struct Placed {
    pub(super) distribute: Option<serde_json::Value>,
}

/// A key that is wanted. KES takes no body here.
#[derive(Default, Deserialize, JsonSchema)]
pub(super) struct ToMake {
    /// `AES256` (unless said otherwise) or `ChaCha20`.
    pub(super) cipher: Option<String>,
    /// The sites where it works.
    #[schemars(with = "Option<DistributeBody>")]
    pub(super) distribute: Option<serde_json::Value>,
}

/// What a new version is to be.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Renewal {
    /// `AES256` or `ChaCha20`, unless that of the version before.
    pub(super) cipher: Option<String>,
    /// Whether HMACs come out otherwise from here on. What clients have derived by one, they then derive anew.
    pub(super) renew_hmac: Option<bool>,
}

/// Versions that are to go.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToErase {
    /// Their numbers; not the newest.
    pub(super) versions: BTreeSet<u32>,
}

/// Which version is meant.
#[derive(Deserialize)]
pub(super) struct OfVersion {
    pub(super) version: Option<u32>,
}

/// As [`KeyBytes`].
#[derive(JsonSchema)]
#[expect(dead_code, reason = "bodies are taken as KES' decoder takes them")]
pub(super) struct DataKeyWanted {
    /// In base64; decrypting takes the same.
    context: Option<String>,
}

/// As [`KeyBytes`].
#[derive(JsonSchema)]
#[expect(dead_code, reason = "bodies are taken as KES' decoder takes them")]
pub(super) struct ToEncrypt {
    /// In base64.
    plaintext: Option<String>,
    /// In base64; decrypting takes the same.
    context: Option<String>,
}

/// As [`KeyBytes`].
#[derive(JsonSchema)]
#[expect(dead_code, reason = "bodies are taken as KES' decoder takes them")]
pub(super) struct ToDecrypt {
    /// In base64, of any form.
    ciphertext: Option<String>,
    /// In base64; that of the encryption.
    context: Option<String>,
}

/// As [`KeyBytes`].
#[derive(JsonSchema)]
#[expect(dead_code, reason = "bodies are taken as KES' decoder takes them")]
pub(super) struct ToAuthenticate {
    /// In base64.
    message: Option<String>,
    /// Ours: with which version's key, by its number; the newest one's unless given, or 0.
    version: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Option<[String; 2]> {
        let texts = Texts::of(body.as_bytes(), ["plaintext", "context"]).ok()?;
        Some([texts.text(0).to_owned(), texts.text(1).to_owned()])
    }

    #[test]
    fn bodies_are_taken_as_by_kes() {
        let both = Some(["YQ==".to_owned(), "Yg==".to_owned()]);
        let first = Some(["YQ==".to_owned(), String::new()]);
        for (body, expected) in [
            (r#"{"plaintext":"YQ==","context":"Yg=="}"#, &both),
            (r#" {"PlainText":"YQ==","x":[{"plaintext":1}],"CONTEXT":"Yg=="} and more"#, &both),
            (r#"{"plaintext":"x","plaintext":"YQ==","context":null}"#, &first),
            ("null", &Some(Default::default())),
            ("{}", &Some(Default::default())),
            ("", &None),
            ("[]", &None),
            ("5", &None),
            ("{", &None),
            (r#"{"plaintext":5}"#, &None),
            (r#"{"plaintext":["YQ=="]}"#, &None),
        ] {
            assert_eq!(&of(body), expected, "{body}");
        }
    }

    #[test]
    fn bytes_are_base64_with_its_padding() {
        for (text, expected) in
            [("", Some(&b""[..])), ("YQ==", Some(b"a")), ("YQ", None), ("YQ=", None), ("Y-_=", None), ("Y Q=", None)]
        {
            let texts = Texts::of(format!("{{\"a\":{text:?}}}").as_bytes(), ["a"]).ok().unwrap();
            assert_eq!(texts.bytes(0).ok().as_ref().map(SecretBytes::expose), expected, "{text}");
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let body = |count: usize| format!("[{}]", vec!["{\"a\":\"\"}"; count].join(","));
        assert_eq!(Texts::list_of(body(3).as_bytes(), ["a"], 3).ok().map(|all| all.len()), Some(3));
        assert!(matches!(Texts::list_of(body(4).as_bytes(), ["a"], 3), Err(Fault::TooManyCiphertexts)));
        for bad in ["{}", "[5]", "[{}", ""] {
            assert!(matches!(Texts::list_of(bad.as_bytes(), ["a"], 3), Err(Fault::BadBody)), "{bad}");
        }
    }
}

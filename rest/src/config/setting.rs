//! What a configured value can be, and how its text is read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use crate::time::parse_duration;

/// A kind of value. The error is a problem in words, to stand behind the key.
pub trait Setting: Sized {
    /// What the reader should have written.
    const EXPECTED: &'static str;

    /// The value, if `value` is of this kind.
    fn parse(value: &Value) -> Option<Self>;

    /// The value or the problem.
    fn read(value: &Value) -> Result<Self, String> {
        Self::parse(value).ok_or_else(|| format!("expected {}", Self::EXPECTED))
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteCount(pub u64);

/// The name of a tenant, site or host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(pub String);

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an address with port like \"127.0.0.1:7373\"";
    fn parse(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration like \"500ms\", \"2s\" or \"1h30m\"";
    fn parse(value: &Value) -> Option<Self> {
        parse_duration(value.as_str()?)
    }
}

impl Setting for ByteCount {
    const EXPECTED: &'static str = "a number of bytes like 4096, \"64 KiB\", \"10 MiB\" or \"2 GiB\"";
    fn parse(value: &Value) -> Option<Self> {
        if let Some(count) = value.as_integer() {
            return u64::try_from(count).ok().map(Self);
        }
        let text = value.as_str()?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let factor = match text[digits..].trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        text[..digits].parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path";
    fn parse(value: &Value) -> Option<Self> {
        value.as_str().filter(|text| !text.is_empty()).map(Self::from)
    }
}

impl Setting for Name {
    const EXPECTED: &'static str = "a name of 1 to 63 letters a-z, digits and inner dashes";
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_edged = text.bytes().next().is_some_and(is_letter) && text.bytes().next_back().is_some_and(is_letter);
        let is_name = is_edged && text.len() <= 63 && text.bytes().all(|byte| is_letter(byte) || byte == b'-');
        is_name.then(|| Self(text.to_owned()))
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a text";
    fn parse(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";
    fn parse(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Setting for u64 {
    const EXPECTED: &'static str = "a whole number of 0 or more";
    fn parse(value: &Value) -> Option<Self> {
        value.as_integer()?.try_into().ok()
    }
}

impl Setting for u32 {
    const EXPECTED: &'static str = "a whole number of 0 or more";
    fn parse(value: &Value) -> Option<Self> {
        value.as_integer()?.try_into().ok()
    }
}

impl<T: Setting> Setting for Vec<T> {
    const EXPECTED: &'static str = "a list";
    fn parse(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::parse).collect()
    }
    fn read(value: &Value) -> Result<Self, String> {
        let items = value.as_array().ok_or("expected a list")?;
        let read_item = |(index, item)| T::read(item).map_err(|problem| format!("item {index}: {problem}"));
        items.iter().enumerate().map(read_item).collect()
    }
}

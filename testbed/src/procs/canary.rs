//! Looks for things that must not lie about: as they are, in hexadecimal, in base64, as lists of numbers, and texts
//! also escaped, percent-encoded and in UTF-16.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A shorter one would be found by chance.
const BYTES_MIN: usize = 8;

/// What is looked for.
#[derive(Default)]
pub struct Canaries {
    patterns: Vec<Pattern>,
    /// By the first two bytes, whether a pattern begins so.
    starts: Vec<bool>,
}

struct Pattern {
    name: String,
    bytes: Vec<u8>,
}

impl Canaries {
    /// Adds one by a name to report it by, in every form that its bytes may take.
    ///
    /// # Panics
    /// It is too short to be looked for.
    pub fn add(&mut self, name: &str, canary: &[u8]) {
        assert!(canary.len() >= BYTES_MIN, "{name} is too short a canary");
        self.pattern(name, "raw", canary.to_vec());
        let digits = hex::encode(canary);
        self.pattern(name, "hex", digits.to_uppercase().into_bytes());
        self.pattern(name, "hex", digits.into_bytes());
        for (form, between) in [("numbers", ", "), ("numbers", ",")] {
            let numbers: Vec<String> = canary.iter().map(u8::to_string).collect();
            self.pattern(name, form, numbers.join(between).into_bytes());
        }
        if let Ok(text) = std::str::from_utf8(canary) {
            self.add_text(name, text);
        }
        for skipped in 0..3 {
            // Within a longer text the bytes may begin at any of three places of a group. The groups that they fill
            // alone are the same in each.
            let whole = &canary[skipped..];
            let whole = &whole[..whole.len() / 3 * 3];
            self.pattern(name, "base64", STANDARD_NO_PAD.encode(whole).into_bytes());
            self.pattern(name, "base64url", URL_SAFE_NO_PAD.encode(whole).into_bytes());
        }
    }

    /// Forms of a text that are not the text itself.
    fn add_text(&mut self, name: &str, text: &str) {
        let escaped = [("debug", format!("{text:?}")), ("json", serde_json::Value::from(text).to_string())];
        for (form, quoted) in escaped {
            let inner = &quoted[1..quoted.len() - 1];
            if inner != text {
                self.pattern(name, form, inner.as_bytes().to_vec());
            }
        }
        for upper in [true, false] {
            let percent = |byte: u8| match byte {
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                _ if upper => format!("%{byte:02X}"),
                _ => format!("%{byte:02x}"),
            };
            let encoded: String = text.bytes().map(percent).collect();
            if encoded != text {
                self.pattern(name, "percent", encoded.into_bytes());
            }
        }
        self.pattern(name, "utf-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect());
        self.pattern(name, "utf-16", text.encode_utf16().flat_map(u16::to_be_bytes).collect());
    }

    /// How many were added, whatever their forms.
    pub fn count(&self) -> usize {
        self.patterns.iter().filter(|pattern| pattern.name.ends_with("(raw)")).count()
    }

    fn pattern(&mut self, name: &str, form: &str, bytes: Vec<u8>) {
        self.starts.resize(1 << 16, false);
        self.starts[start(&bytes)] = true;
        self.patterns.push(Pattern { name: format!("{name} ({form})"), bytes });
    }

    /// The names of those in `haystack`.
    pub fn find(&self, haystack: &[u8]) -> Vec<&str> {
        let mut found = Vec::new();
        for at in 0..haystack.len().saturating_sub(BYTES_MIN - 1) {
            if self.starts.get(start(&haystack[at..])) == Some(&true) {
                let here = self.patterns.iter().filter(|pattern| haystack[at..].starts_with(&pattern.bytes));
                found.extend(here.map(|pattern| pattern.name.as_str()));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Every file under `dir` with a canary in it or in its name, and which. `except` is asked with the path below
    /// `dir`.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn find_under(&self, dir: &Path, except: &dyn Fn(&Path) -> bool) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let path = entry.path();
                let below = path.strip_prefix(dir).unwrap_or(&path);
                if except(below) {
                    continue;
                }
                let mut inside = self.find(below.as_os_str().as_encoded_bytes());
                let kind = entry.file_type()?;
                let content;
                if kind.is_dir() {
                    folders.push(path.clone());
                } else if kind.is_file() {
                    content = read(&path)?;
                    inside.extend(self.find(&content));
                }
                found.extend(inside.into_iter().map(|name| format!("{}: {name}", below.display())));
            }
        }
        Ok(found)
    }
}

/// Of a file that is gone by now nothing lies about.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

fn start(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    const CANARY: &[u8] = b"correct horse \xff\xfe battery";

    fn canaries() -> Canaries {
        let mut canaries = Canaries::default();
        canaries.add("horse", CANARY);
        canaries
    }

    fn within(before: &[u8]) -> Vec<u8> {
        [before, CANARY, b" staple"].concat()
    }

    #[test]
    fn every_form_is_found_wherever_it_begins() {
        let canaries = canaries();
        for before in [&b""[..], b"1", b"12", b"123", b"1234"] {
            let text = within(before);
            assert_eq!(canaries.find(&text), ["horse (raw)"]);
            assert_eq!(canaries.find(hex::encode(&text).as_bytes()), ["horse (hex)"]);
            assert_eq!(canaries.find(hex::encode_upper(&text).as_bytes()), ["horse (hex)"]);
            assert!(canaries.find(STANDARD.encode(&text).as_bytes()).contains(&"horse (base64)"), "{before:?}");
            assert!(canaries.find(URL_SAFE.encode(&text).as_bytes()).contains(&"horse (base64url)"), "{before:?}");
        }
    }

    #[test]
    fn a_text_is_found_however_it_is_written() {
        let mut canaries = Canaries::default();
        let text = "correct \"horse\"\n staple";
        canaries.add("horse", text.as_bytes());
        assert_eq!(canaries.count(), 1);
        let utf16: Vec<u8> = format!("xy{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(canaries.find(&utf16), ["horse (utf-16)"]);
        for (form, written) in [
            ("debug", format!("Some({text:?})")),
            ("json", serde_json::json!({ "a": text }).to_string()),
            ("numbers", format!("{:?}", text.as_bytes())),
            ("numbers", serde_json::json!(text.as_bytes()).to_string()),
            ("percent", "/?x=correct%20%22horse%22%0A%20staple".to_owned()),
            ("percent", "/?x=correct%20%22horse%22%0a%20staple".to_owned()),
        ] {
            let found = canaries.find(written.as_bytes());
            assert!(found.contains(&format!("horse ({form})").as_str()), "{written}: {found:?}");
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert!(canaries().find(b"correct horse battery staple").is_empty());
        assert!(canaries().find(b"").is_empty());
        assert!(Canaries::default().find(b"anything at all").is_empty());
    }

    #[test]
    fn files_and_their_names_are_searched_but_for_exceptions() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::write(folder.path().join("data/store"), within(b"..")).unwrap();
        fs::write(folder.path().join("own"), CANARY).unwrap();
        fs::write(folder.path().join(hex::encode(CANARY)), b"").unwrap();
        let mut found = canaries().find_under(folder.path(), &|path| path == Path::new("own")).unwrap();
        found.sort();
        assert_eq!(found, [format!("{}: horse (hex)", hex::encode(CANARY)), "data/store: horse (raw)".to_owned()]);
    }
}

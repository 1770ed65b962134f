//! Patterns of KES policies and lists, in the two meanings that they have had.
//!
//! To 2023 patterns were those of Go's `path.Match`, here [`Globbing::Segments`]: `*` is any number of characters but
//! `/`, `?` one of them, `[a-z]` and `[^a-z]` one of a class, which `/` may be in, `\` takes what follows literally. A `*`
//! takes as little as lets what stands up to the next `*` match; that choice is not taken back. Since then they are
//! [`Globbing::Prefixes`]: the text itself, or with a `*` at its end whatever begins with the rest.
//!
//! A policy is judged in the meaning that it was written in, by whichever way a request comes.

use serde::{Deserialize, Serialize};

/// What patterns mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Globbing {
    /// As Go's `path.Match`.
    Segments,
    /// Exactly, or a prefix before `*`.
    Prefixes,
}

/// Not a pattern: a class or an escape without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

impl Globbing {
    /// Whether a text is a pattern.
    ///
    /// # Errors
    /// It is none.
    pub fn check(self, pattern: &str) -> Result<(), BadPattern> {
        match self {
            Self::Segments => Tokens(pattern.as_bytes()).try_for_each(|token| token.map(drop)),
            Self::Prefixes => Ok(()),
        }
    }

    /// Whether a pattern takes `text`. What is no pattern takes nothing.
    pub fn matches(self, pattern: &str, text: &str) -> bool {
        match self {
            Self::Segments => segments_match(pattern.as_bytes(), text.as_bytes()),
            Self::Prefixes => match pattern.strip_suffix('*') {
                Some(prefix) => text.starts_with(prefix),
                None => pattern == text,
            },
        }
    }
}

/// What a pattern is made of.
#[derive(Debug, Clone, Copy)]
enum Token<'p> {
    Star,
    One,
    Byte(u8),
    /// What stands behind `[` or `[^`, with the bracket that ends it, and whether it is all others that are meant.
    Class(&'p [u8], bool),
}

/// Takes a pattern apart.
#[derive(Debug, Clone, Copy)]
struct Tokens<'p>(&'p [u8]);

impl<'p> Tokens<'p> {
    fn token(&mut self) -> Result<Option<Token<'p>>, BadPattern> {
        let Some((&first, rest)) = self.0.split_first() else { return Ok(None) };
        self.0 = rest;
        Ok(Some(match first {
            b'*' => Token::Star,
            b'?' => Token::One,
            b'\\' => {
                let (&escaped, rest) = rest.split_first().ok_or(BadPattern)?;
                self.0 = rest;
                Token::Byte(escaped)
            }
            b'[' => {
                let (negated, body) = rest.strip_prefix(b"^").map_or((false, rest), |body| (true, body));
                let end = class_end(body)?;
                self.0 = &body[end + 1..];
                Token::Class(&body[..=end], negated)
            }
            byte => Token::Byte(byte),
        }))
    }

    /// What stands up to the next star, or to the end.
    fn until_star(self) -> (Self, Option<Self>) {
        let mut after = self;
        loop {
            let at = self.0.len() - after.0.len();
            match after.token() {
                Ok(Some(Token::Star)) => return (Self(&self.0[..at]), Some(after)),
                Ok(Some(_)) => {}
                Ok(None) | Err(BadPattern) => return (self, None),
            }
        }
    }
}

impl<'p> Iterator for Tokens<'p> {
    type Item = Result<Token<'p>, BadPattern>;

    fn next(&mut self) -> Option<Self::Item> {
        let token = self.token().transpose();
        if matches!(token, Some(Err(_))) {
            self.0 = &[];
        }
        token
    }
}

/// Where the bracket is that ends a class: after at least one character or range.
fn class_end(body: &[u8]) -> Result<usize, BadPattern> {
    let mut rest = body;
    loop {
        range(&mut rest)?;
        if rest.first() == Some(&b']') {
            return Ok(body.len() - rest.len());
        }
    }
}

/// A character, or two with a `-` between.
fn range<'p>(rest: &mut &'p [u8]) -> Result<(u32, u32), BadPattern> {
    let low = class_character(rest)?;
    let bytes: &'p [u8] = rest;
    let Some(after) = bytes.strip_prefix(b"-") else { return Ok((low, low)) };
    *rest = after;
    Ok((low, class_character(rest)?))
}

fn class_character<'p>(rest: &mut &'p [u8]) -> Result<u32, BadPattern> {
    let bytes: &'p [u8] = rest;
    if matches!(bytes.first(), None | Some(b'-' | b']')) {
        return Err(BadPattern);
    }
    let bytes = bytes.strip_prefix(b"\\").unwrap_or(bytes);
    if bytes.is_empty() {
        return Err(BadPattern);
    }
    let (character, len) = character(bytes);
    *rest = &bytes[len..];
    // A class goes on, if only with the bracket that ends it.
    if rest.is_empty() { Err(BadPattern) } else { Ok(character) }
}

/// The character that bytes begin with, and how many it takes. Inside of one, where a star may have led, each byte counts
/// as U+FFFD, as in Go.
fn character(bytes: &[u8]) -> (u32, usize) {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().next().map_or((0xfffd, 1), |first| (u32::from(first), first.len_utf8()))
}

/// What is no pattern takes nothing, without being looked at before: every text that is taken has been led past all of the
/// pattern, and past what is none nothing leads.
fn segments_match(pattern: &[u8], text: &[u8]) -> bool {
    // What stands before anything special stands in the text as well; by that most patterns are told apart.
    let plain = pattern.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(pattern.len());
    let (plain, pattern) = pattern.split_at(plain);
    let Some(text) = text.strip_prefix(plain) else { return false };
    let (chunk, mut after) = Tokens(pattern).until_star();
    let Some(mut rest) = chunk_match(chunk, text) else { return false };
    loop {
        let Some(pattern) = after else { return rest.is_empty() };
        let (chunk, next) = pattern.until_star();
        if chunk.0.is_empty() && next.is_none() {
            return !rest.contains(&b'/');
        }
        // As few characters for the star as do; with nothing behind, all that is left must match.
        let skips = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let reached = (0..=skips).find_map(|skip| {
            let reached = chunk_match(chunk, &rest[skip..])?;
            (next.is_some() || reached.is_empty()).then_some(reached)
        });
        match reached {
            Some(reached) => rest = reached,
            None => return false,
        }
        after = next;
    }
}

/// What is left of the text after a chunk without stars.
fn chunk_match<'t>(chunk: Tokens<'_>, text: &'t [u8]) -> Option<&'t [u8]> {
    let mut rest = text;
    for token in chunk {
        let (&first, _) = rest.split_first()?;
        let len = match token.ok()? {
            Token::Byte(byte) => (byte == first).then_some(1)?,
            Token::One => (first != b'/').then(|| character(rest).1)?,
            Token::Class(body, negated) => {
                let (character, len) = character(rest);
                (is_in(body, character) != negated).then_some(len)?
            }
            Token::Star => return None,
        };
        rest = &rest[len..];
    }
    Some(rest)
}

/// Whether a character is in a class, which was checked; `body` ends with its bracket.
fn is_in(body: &[u8], character: u32) -> bool {
    let mut rest = body;
    while 1 < rest.len() {
        match range(&mut rest) {
            Ok((low, high)) if (low..=high).contains(&character) => return true,
            Ok(_) => {}
            Err(BadPattern) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pattern, text, and what Go's `path.Match` says of them; `vectors/path_match.go` beside it writes it anew.
    const OF_GO: &str = include_str!("vectors/path_match.tsv");

    #[test]
    fn segments_are_matched_as_go_matches_them() {
        let mut seen = [0; 3];
        for line in OF_GO.lines() {
            let [pattern, text, outcome] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let ours = match Globbing::Segments.check(pattern) {
                Err(BadPattern) => "bad",
                Ok(()) if Globbing::Segments.matches(pattern, text) => "yes",
                Ok(()) => "no",
            };
            assert_eq!(ours, outcome, "{pattern:?} {text:?}");
            seen[["bad", "yes", "no"].iter().position(|known| *known == outcome).unwrap()] += 1;
        }
        assert!(seen.iter().all(|seen| 200 < *seen), "{seen:?}");
    }

    #[test]
    fn what_is_no_pattern_takes_nothing() {
        for pattern in ["[", "[]", "[a", "[a-]", "a\\", "[]a]", "*[", "a[^", "["] {
            assert_eq!(Globbing::Segments.check(pattern), Err(BadPattern), "{pattern}");
            for text in ["", "a", "[", pattern] {
                assert!(!Globbing::Segments.matches(pattern, text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn prefixes_are_exact_but_for_a_star_at_the_end() {
        for (pattern, text, taken) in [
            ("/v1/key/create/a", "/v1/key/create/a", true),
            ("/v1/key/create/a", "/v1/key/create/ab", false),
            ("/v1/key/create/a*", "/v1/key/create/ab", true),
            ("/v1/key/create/a*", "/v1/key/create/a", true),
            ("/v1/key/create/a*", "/v1/key/create/b", false),
            ("/v1/key/*", "/v1/key/create/a/b", true),
            ("*", "/anything", true),
            ("*", "", true),
            ("", "", true),
            ("", "/v1", false),
            ("/v1/*/a", "/v1/key/a", false),
            ("/v1/*/a", "/v1/*/a", true),
            ("/v1/key/create/a**", "/v1/key/create/a*b", true),
            ("/v1/key/create/[ab]", "/v1/key/create/a", false),
            ("[", "[", true),
        ] {
            assert_eq!(Globbing::Prefixes.matches(pattern, text), taken, "{pattern} {text}");
            assert_eq!(Globbing::Prefixes.check(pattern), Ok(()));
        }
    }

    #[test]
    fn a_hostile_pattern_takes_a_bounded_time() {
        // Quadratic at worst: no choice is taken back. If one were, nobody would live to see the end.
        let (done, outcome) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (pattern, text) = ("*a".repeat(200), "a".repeat(20_000));
            done.send(Globbing::Segments.matches(&format!("{pattern}b"), &text))
        });
        assert_eq!(outcome.recv_timeout(std::time::Duration::from_secs(60)), Ok(false));
    }
}

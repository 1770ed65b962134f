//! Lists of names, page by page, in both ways that KES has had: by a pattern of Go's `path.Match`, or by a prefix.
//!
//! Clients of today go on with a list by asking for the text that came as `continue_at` in place of the prefix. So that
//! text says both what is listed and where to go on: `PREFIX**NAME`, which nobody asks for. `*NAME` is refused, as KES
//! does: it looks like a pattern of the other way, which it is not here.

use holdfast_protocol::kes::NameError;
use holdfast_protocol::kes::name::{NAME_BYTES_MAX, is_name, is_of_name};

use crate::access_control::globs::{BadPattern, Globbing};
use crate::access_control::policies::PATTERN_BYTES_MAX;

/// Names on a page.
pub const PAGE_NAMES: usize = 1024;
/// Between what is listed and where to go on.
const GOES_ON: &str = "**";

/// Which names are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// All that a pattern takes.
    Segments(String),
    /// All that begin so.
    Prefix {
        /// What with.
        prefix: String,
        /// The first that has not been told.
        from: Option<String>,
    },
}

/// A name in a list, and what else is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The name.
    pub name: String,
    /// The rest.
    pub of: T,
}

/// Some names, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What was asked for.
    pub found: Vec<Listed<T>>,
    /// What to ask for next; `None`: there are no more.
    pub continue_at: Option<String>,
}

impl Listing {
    /// By a pattern of `path.Match`.
    ///
    /// # Errors
    /// It is none, or longer than one of a policy may be.
    pub fn segments(pattern: &str) -> Result<Self, BadPattern> {
        if PATTERN_BYTES_MAX < pattern.len() {
            return Err(BadPattern);
        }
        Globbing::Segments.check(pattern)?;
        Ok(Self::Segments(pattern.to_owned()))
    }

    /// By a prefix, with or without a `*` behind it, or what a page has said to go on with.
    ///
    /// # Errors
    /// Too long, or with characters that names have not.
    pub fn prefix(text: &str) -> Result<Self, NameError> {
        let (prefix, from) = match (text.split_once(GOES_ON), text.strip_suffix('*')) {
            (None, None) if text.is_empty() || is_name(text) => (text, None),
            (None, Some(prefix)) => (prefix, None),
            (Some((prefix, from)), _) if is_name(from) && from.starts_with(prefix) => (prefix, Some(from.to_owned())),
            _ => return Err(NameError),
        };
        let is_prefix = prefix.len() <= NAME_BYTES_MAX && prefix.bytes().all(is_of_name) && !prefix.starts_with('-');
        if is_prefix { Ok(Self::Prefix { prefix: prefix.to_owned(), from }) } else { Err(NameError) }
    }

    /// A page of at most `limit`, out of all there are in the order of their names. A list by pattern is always whole.
    pub fn page<'a, T: Clone + 'a>(&self, all: impl IntoIterator<Item = &'a Listed<T>>, limit: usize) -> Page<T> {
        let all = all.into_iter();
        let (prefix, from) = match self {
            Self::Segments(pattern) => {
                let taken = all.filter(|one| Globbing::Segments.matches(pattern, &one.name));
                return Page { found: taken.cloned().collect(), continue_at: None };
            }
            Self::Prefix { prefix, from } => (prefix.as_str(), from.as_ref().unwrap_or(prefix).as_str()),
        };
        let mut rest = all.skip_while(|one| one.name.as_str() < from).take_while(|one| one.name.starts_with(prefix));
        let found = rest.by_ref().take(limit.max(1)).cloned().collect();
        Page { found, continue_at: rest.next().map(|next| format!("{prefix}{GOES_ON}{}", next.name)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_no_longer_than_one_of_a_policy() {
        let longest = "a".repeat(PATTERN_BYTES_MAX);
        assert!(Listing::segments(&longest).is_ok());
        assert_eq!(Listing::segments(&format!("{longest}a")), Err(BadPattern));
    }

    #[test]
    fn what_lists_is_a_prefix_with_or_without_a_star() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for (text, prefix) in
            [("", ""), ("*", ""), ("a", "a"), ("a*", "a"), ("my-*", "my-"), ("_*", "_"), (longest.as_str(), &longest)]
        {
            let expected = Listing::Prefix { prefix: prefix.to_owned(), from: None };
            assert_eq!(Listing::prefix(text), Ok(expected), "{text}");
        }
        let too_long = format!("{longest}a*");
        for bad in [
            "a-", "-", "-*", "_", "**", "a**", "a.b", "a/b", "a b", "a*b", "*-", "*a-", "a*a*", "\u{e4}*", &too_long,
            "*dev", "*a", "a*ab", "a**b", "**-", "***", "a***", "a**ab*", "***ab",
        ] {
            assert_eq!(Listing::prefix(bad), Err(NameError), "{bad}");
        }
    }

    fn listed(names: &[impl AsRef<str>]) -> Vec<Listed<()>> {
        names.iter().map(|name| Listed { name: name.as_ref().to_owned(), of: () }).collect()
    }

    fn names_of(page: &Page<()>) -> Vec<String> {
        page.found.iter().map(|one| one.name.clone()).collect()
    }

    #[test]
    fn pages_are_complete_and_do_not_overlap_however_long_they_are() {
        let names: Vec<String> = (0..300).map(|n| format!("app-{n:04}")).chain(["b".to_owned()]).collect();
        for (prefix, expected) in [("", 301_usize), ("app-*", 300), ("app-02", 100), ("app-0299", 1), ("c", 0)] {
            for limit in [1, 7, 99, 100, 101, 299, 300, 301, 302] {
                let (mut text, mut found, mut pages) = (prefix.to_owned(), Vec::new(), 0);
                loop {
                    let page = Listing::prefix(&text).unwrap().page(&listed(&names), limit);
                    assert!(page.found.len() <= limit);
                    found.extend(names_of(&page));
                    pages += 1;
                    match page.continue_at {
                        Some(next) => text = next,
                        None => break,
                    }
                }
                let wanted = names.iter().filter(|name| name.starts_with(prefix.trim_end_matches('*')));
                assert_eq!(found, wanted.cloned().collect::<Vec<_>>(), "{prefix} {limit}");
                assert_eq!((found.len(), pages), (expected, expected.div_ceil(limit).max(1)), "{prefix} {limit}");
            }
        }
    }

    #[test]
    fn a_name_that_is_gone_meanwhile_ends_no_list() {
        let page = Listing::prefix("a*").unwrap().page(&listed(&["a1", "a2", "a3"]), 1);
        let next = Listing::prefix(&page.continue_at.unwrap()).unwrap();
        assert_eq!(names_of(&next.page(&listed(&["a1", "a3"]), 1)), ["a3"]);
    }

    #[test]
    fn a_list_by_pattern_is_whole() {
        let names = ["my-key", "my-key1", "other"];
        let page = Listing::segments("my-key*").unwrap().page(&listed(&names), 1);
        assert_eq!((names_of(&page), page.continue_at), (vec!["my-key".to_owned(), "my-key1".to_owned()], None));
        assert_eq!(Listing::segments("["), Err(BadPattern));
    }
}

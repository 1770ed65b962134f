//! The tables of operations, read from their text; what the text means is said in `central.txt`.

use std::collections::{BTreeMap, BTreeSet};

/// One operation with all that is to be shown of it.
#[derive(Debug, Default)]
pub(super) struct Operation {
    pub(super) method: String,
    pub(super) route: String,
    /// As its first line promises.
    pub(super) statuses: BTreeSet<u16>,
    /// The words of its second line.
    pub(super) traits: BTreeSet<String>,
    /// Who may, first; then what others get. Empty: anybody, without a token.
    pub(super) callers: Vec<(String, Caller)>,
    pub(super) calls: Vec<Call>,
}

/// What one of the cast may expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// To be let.
    May,
    /// This refusal.
    Refused(u16),
}

/// One call of it, and what comes of that.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    pub(super) status: u16,
    /// `bites`, `stopped`, `fresh`, `unable`.
    pub(super) flags: BTreeSet<String>,
    pub(super) set: BTreeMap<String, String>,
    pub(super) body: String,
    pub(super) words: String,
}

impl Operation {
    pub(super) fn is(&self, what: &str) -> bool {
        self.traits.contains(what)
    }

    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.route)
    }

    /// Who is let.
    pub(super) fn who_may(&self) -> impl Iterator<Item = &str> {
        self.callers.iter().filter(|(_, caller)| *caller == Caller::May).map(|(name, _)| name.as_str())
    }

    /// The call that shows it at work: the first that succeeds, at a restored copy where it is about one.
    pub(super) fn good(&self) -> &Call {
        let good = self.calls.iter().filter(|call| call.is_done_here()).find(|call| call.succeeds());
        good.or_else(|| self.calls.iter().find(|call| call.is_done_here())).expect("an operation is called")
    }
}

impl Call {
    pub(super) fn succeeds(&self) -> bool {
        self.status < 400
    }

    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(String::as_str)
    }

    /// Whether it is done by this test, and not shown elsewhere.
    pub(super) fn is_done_here(&self) -> bool {
        self.get("elsewhere").is_none()
    }
}

/// Reads a table.
pub(super) fn read(text: &str) -> Vec<Operation> {
    let (mut operations, mut casts) = (Vec::<Operation>::new(), BTreeMap::new());
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if let Some((name, callers)) = line.strip_prefix('@').and_then(|line| line.split_once(' ')) {
            casts.insert(format!("@{name}"), cast(callers));
        } else if !line.starts_with(' ') {
            operations.push(begun(line));
        } else {
            let operation = operations.last_mut().unwrap_or_else(|| panic!("of no operation: {line}"));
            below(operation, line.trim(), &casts);
        }
    }
    operations
}

fn begun(line: &str) -> Operation {
    let mut words = line.split_whitespace();
    let [method, route] = [words.next(), words.next()].map(|word| word.unwrap_or_default().to_owned());
    let statuses = words.map(|word| word.parse().unwrap_or_else(|_| panic!("no status: {line}"))).collect();
    Operation { method, route, statuses, ..Operation::default() }
}

fn below(operation: &mut Operation, line: &str, casts: &BTreeMap<String, Vec<(String, Caller)>>) {
    if line.starts_with(|first: char| first.is_ascii_digit()) {
        operation.calls.push(call(line));
    } else if line.starts_with('@') {
        operation.callers.clone_from(casts.get(line).unwrap_or_else(|| panic!("nobody is {line}")));
    } else if line.starts_with("may ") {
        operation.callers = cast(line);
    } else {
        operation.traits.extend(line.split_whitespace().map(str::to_owned));
    }
}

fn cast(line: &str) -> Vec<(String, Caller)> {
    let mut all = Vec::new();
    for part in line.trim().split('|') {
        let mut words = part.split_whitespace();
        let caller = match words.next() {
            Some("may") => Caller::May,
            Some(status) => Caller::Refused(status.parse().unwrap_or_else(|_| panic!("no status: {line}"))),
            None => panic!("nobody: {line}"),
        };
        all.extend(words.map(|name| (name.to_owned(), caller)));
    }
    all
}

fn call(line: &str) -> Call {
    let (line, words) = line.split_once(" # ").unwrap_or((line, ""));
    let line = line.trim_end().trim_end_matches(" #");
    let (head, body) = line.find(" {").map_or((line, ""), |at| line.split_at(at));
    let mut parts = head.split_whitespace();
    let status = parts.next().and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {line}"));
    let (body, words) = (body.trim().to_owned(), words.trim_end().to_owned());
    let mut call = Call { status, body, words, ..Call::default() };
    for part in parts {
        match part.split_once('=') {
            // A query may hold a further `=`.
            Some((name, value)) => drop(call.set.insert(name.to_owned(), value.trim_start_matches('=').to_owned())),
            None => drop(call.flags.insert(part.to_owned())),
        }
    }
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_says() {
        let text = "@us may ann | 403 bob\n\nPUT /a/{b} 204 403 412\n  change body\n  @us\n  204 b=c bites {\"d\": 1} # gone\n  412 if-match=\"7\" ?=force";
        let [operation] = &read(text)[..] else { panic!() };
        assert_eq!((operation.name().as_str(), operation.is("change")), ("PUT /a/{b}", true));
        assert_eq!(operation.statuses, [204, 403, 412].into());
        assert_eq!(operation.callers[1], ("bob".to_owned(), Caller::Refused(403)));
        let first = operation.good();
        assert_eq!((first.get("b"), first.has("bites"), first.body.as_str()), (Some("c"), true, "{\"d\": 1}"));
        assert_eq!(first.words, "gone");
        assert_eq!((operation.calls[1].get("if-match"), operation.calls[1].get("?")), (Some("\"7\""), Some("force")));
    }
}

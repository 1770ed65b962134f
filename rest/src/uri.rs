//! Percent-encoding undone, in paths and in queries.

/// A member of a query; the first that can be decoded, if it stands there more than once.
pub(crate) fn query_member(query: Option<&str>, name: &str) -> Option<String> {
    query_values(query, name).flatten().next()
}

/// All members of a query with this name, in their order; `None` for one that can't be decoded.
pub(crate) fn query_values(query: Option<&str>, name: &str) -> impl Iterator<Item = Option<String>> {
    let members = query.into_iter().flat_map(|query| query.split('&'));
    let members = members.map(|member| member.split_once('=').unwrap_or((member, "")));
    members.filter(move |(key, _)| *key == name).map(|(_, value)| decoded(value, true))
}

/// Undoes percent-encoding; `None` where it is broken or the result is no UTF-8.
pub(crate) fn decoded(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let (digits, after) = rest.split_first_chunk::<2>()?;
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).ok()?;
                bytes.push(byte[0]);
                rest = after;
            }
            b'+' if plus_is_blank => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_members_are_found_and_decoded() {
        let query = Some("a=1&list=True&b=x%20y+z&c");
        assert_eq!(query_member(query, "list").as_deref(), Some("True"));
        assert_eq!(query_member(query, "b").as_deref(), Some("x y z"));
        assert_eq!(query_member(query, "c").as_deref(), Some(""));
        assert_eq!(query_member(query, "d"), None);
        assert_eq!(query_member(None, "a"), None);
    }
}

//! From a box's name to its part of paths, by Cerberus' rule: blanks become hyphens, letters lose their marks, whatever
//! is not a letter, digit, `_` or `-` goes, and all is lower case.

/// The slug of a name; may be empty.
pub fn slug(name: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for c in name.chars() {
        match if c.is_whitespace() { '-' } else { base_letter(c) } {
            c if c.is_ascii_alphanumeric() || c == '-' || c == '_' => slug.push(c.to_ascii_lowercase()),
            _ => {}
        }
    }
    slug
}

/// The letter under a mark, for the letters of Latin-1 and Latin Extended-A that have a canonical decomposition.
fn base_letter(c: char) -> char {
    LETTERS.iter().find(|(marked, _)| marked.contains(c)).map_or(c, |(_, base)| *base)
}

const LETTERS: &[(&str, char)] = &[
    ("ÀÁÂÃÄÅàáâãäåĀāĂăĄą", 'a'),
    ("ÇçĆćĈĉĊċČč", 'c'),
    ("Ďď", 'd'),
    ("ÈÉÊËèéêëĒēĔĕĖėĘęĚě", 'e'),
    ("ĜĝĞğĠġĢģ", 'g'),
    ("Ĥĥ", 'h'),
    ("ÌÍÎÏìíîïĨĩĪīĬĭĮįİ", 'i'),
    ("Ĵĵ", 'j'),
    ("Ķķ", 'k'),
    ("ĹĺĻļĽľ", 'l'),
    ("ÑñŃńŅņŇň", 'n'),
    ("ÒÓÔÕÖòóôõöŌōŎŏŐő", 'o'),
    ("ŔŕŖŗŘř", 'r'),
    ("ŚśŜŝŞşŠš", 's'),
    ("ŢţŤť", 't'),
    ("ÙÚÛÜùúûüŨũŪūŬŭŮůŰűŲų", 'u'),
    ("Ŵŵ", 'w'),
    ("ÝýÿŶŷŸ", 'y'),
    ("ŹźŻżŽž", 'z'),
];

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn names_become_paths_by_the_rule() {
        for (name, expected) in [
            ("Stage", "stage"),
            ("My  Box", "my--box"),
            ("a_b-C", "a_b-c"),
            ("Crème Brûlée", "creme-brulee"),
            ("tab\there", "tab-here"),
            ("50% off!", "50-off"),
            ("Łódź", "odz"),
            ("../etc", "etc"),
            ("日本", ""),
            ("!!", ""),
        ] {
            assert_eq!(slug(name), expected, "{name}");
        }
    }
}

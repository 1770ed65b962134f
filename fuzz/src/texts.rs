//! Short texts that mean something: shares, seal keys, tokens, durations, times, addresses, names, paths, placements.

use std::cell::RefCell;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use holdfast_actors::access_control::{VerifiedTokens, verify};
use holdfast_actors::ports::Now;
use holdfast_actors::seal_keeper::Proof;
use holdfast_actors::secret_store::SecretPath;
use holdfast_actors::secret_store::slug::slug;
use holdfast_actors::shamir::{Share, ValidShares, ValidThreshold, combine, decode_key, split};
use holdfast_protocol::ids::Realm;
use holdfast_protocol::limits::{PATH_LEVELS_MAX, SEGMENT_BYTES_MAX};
use holdfast_protocol::secret::Secret;
use holdfast_rest::access::bearer;
use holdfast_rest::distribute::DistributeBody;
use holdfast_rest::time::{format_duration, parse_duration, parse_rfc3339, rfc3339_us};
use holdfast_site_agent::tpm::Address;

use crate::world::World;
use crate::{Memory, choose, chosen};

/// The most is 255 shares, and rows for a token.
pub const MEMORY: Memory = Memory { fixed: 2 << 20, each: 128 };

/// Reads `data` as what its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    if which % 10 == 0 {
        return any_shares(bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match which % 10 {
        1 => share(text),
        2 => proof(text),
        3 => token(text),
        4 => duration(text),
        5 => drop(parse_rfc3339(text).map(|at| assert_eq!(parse_rfc3339(&rfc3339_us(at)), Some(at), "{text:?}"))),
        6 => address(text),
        7 => secret_path(text),
        8 => placement(text),
        _ => authorization(bytes),
    }
}

/// Whatever bytes shares have, they combine to something; those of a secret to that secret, as soon as there are enough.
fn any_shares(bytes: &[u8]) {
    let Some(([threshold, count, secret], rest)) = bytes.split_first_chunk::<3>() else { return };
    let Ok(valid) = ValidThreshold::new(*threshold, *count) else {
        return assert!(*threshold < 2 || count < threshold);
    };
    let garbage = rest.chunks_exact(33).filter_map(|share| Share::new(share[0], Secret::from_slice(&share[1..])?));
    if let Ok(shares) = ValidShares::new(valid, garbage.collect()) {
        let _ = combine(&shares);
    }
    // Large thresholds differ from small ones in nothing but time.
    if *threshold <= 8 {
        let secret = Secret::fill_with(|into| into.fill(*secret));
        let coefficients: Vec<Secret<32>> = (1..*threshold).map(|at| coefficient(rest, at)).collect();
        let mut shares = split(&secret, valid, &coefficients).expect("one coefficient less than the threshold");
        let skipped = shares.len() - usize::from(*threshold);
        let enough = ValidShares::new(valid, shares.split_off(skipped)).expect("enough, each once");
        assert!(combine(&enough).ct_eq(&secret));
        assert!(ValidShares::new(valid, shares.into_iter().take(usize::from(*threshold) - 1).collect()).is_err());
    }
}

fn coefficient(bytes: &[u8], at: u8) -> Secret<32> {
    Secret::fill_with(|into| {
        for (byte, from) in into.iter_mut().zip(bytes.iter().skip(usize::from(at))) {
            *byte = from ^ at;
        }
    })
}

fn share(text: &str) {
    if let Ok(share) = text.parse::<Share>() {
        assert_eq!(*share.expose_text(), text, "one spelling only");
        assert_ne!(share.x(), 0, "the secret lies there");
    }
    if let Some(key) = decode_key(text) {
        assert_eq!(STANDARD.encode(key.expose()), text, "one spelling only");
    }
}

/// Lines are shares; a single one is a seal key.
fn proof(text: &str) {
    let lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    for outcome in
        [Proof::parse(Some(text), None), Proof::parse(None, Some(&lines)), Proof::parse(Some(text), Some(&lines))]
    {
        match outcome {
            Ok(Proof::SealKey(key)) => assert_eq!(STANDARD.encode(key.expose()), text),
            Ok(Proof::Shares(shares)) => assert_eq!(shares.len(), lines.len()),
            Err(refusal) => assert!(refusal.to_string().len() < 80),
        }
    }
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// The only token that holds is the one that was made. What does not begin as one is tried as the inside of one.
fn token(text: &str) {
    WORLD.with_borrow_mut(|kept| {
        let world = kept.get_or_insert_with(World::new);
        let inside = format!("hft_{}", URL_SAFE_NO_PAD.encode(text));
        for text in [text, &inside, &text.replace("$R", &world.root)] {
            let rows = world.barrier.snapshot().expect("it is unsealed");
            let locate = |number| Some(Realm(number));
            let now = Now { mono: Duration::ZERO, wall_us: 1_800_000_000_000_000 };
            let caller = verify(text, &locate, &rows, now, &VerifiedTokens::default());
            assert_eq!(caller.is_ok(), text == world.root, "taken, and never made");
        }
    });
}

fn duration(text: &str) {
    let Some(duration) = parse_duration(text) else { return };
    let written = format_duration(duration);
    assert_eq!(parse_duration(&written), Some(duration), "{text:?} is {written}");
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text:?}");
}

fn address(text: &str) {
    let Ok(address) = text.parse::<Address>() else { return };
    assert_eq!(address.to_string().parse::<Address>().ok(), Some(address), "{text:?}");
}

/// Segments are separated by 0x1f, so that all other characters can stand in one.
fn secret_path(text: &str) {
    let segments: Vec<String> = text.split('\u{1f}').map(str::to_owned).collect();
    if let Ok(path) = SecretPath::new(segments.clone()) {
        assert!(segments.len() <= PATH_LEVELS_MAX - 2);
        for segment in &segments {
            assert!(!segment.is_empty() && segment.len() <= SEGMENT_BYTES_MAX);
            assert!(!segment.contains(|c: char| c.is_control() || c == '/'), "{segment:?}");
        }
        assert_eq!(path.below("box")[1..], segments);
    }
    let slug = slug(text);
    assert!(slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_'), "{slug:?}");
    assert_eq!(self::slug(&slug), slug);
}

fn placement(text: &str) {
    let Ok(body) = serde_json::from_str::<DistributeBody>(text) else { return };
    let Ok(meant) = body.parse() else { return };
    let again = serde_json::to_string(&DistributeBody::from(&meant)).expect("it can be written");
    let again: DistributeBody = serde_json::from_str(&again).expect("what we write is read");
    assert_eq!(again.parse(), Ok(meant), "{text:?}");
}

fn authorization(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
    if let Some(token) = bearer(&headers) {
        assert_eq!(token.trim(), token);
        assert!(bytes.len() > token.len() + "bearer".len());
    }
}

/// One of each, and some that only look like one.
pub fn seeds() -> Vec<Vec<u8>> {
    let key = STANDARD.encode([0x5a; 32]);
    let share = format!("3:{key}");
    let mut shares = vec![3, 5, 7];
    (1..=3).for_each(|x| shares.extend([x; 33]));
    [
        (0, shares.as_slice()),
        (1, share.as_bytes()),
        (1, key.as_bytes()),
        (1, format!("03:{key}").as_bytes()),
        (1, format!("0:{key}").as_bytes()),
        (2, key.as_bytes()),
        (2, format!("{share}\n1:{key}").as_bytes()),
        (3, b"$R"),
        (3, b"hft_AQ"),
        (3, b"\x01\x00\x00root\x00"),
        (4, b"1y2d3h4m5s6ms"),
        (4, b"500ms"),
        (4, b"18446744073709551615ms"),
        (4, "1\u{e9}".as_bytes()),
        (5, b"2023-11-14T23:13:20.123456+01:00"),
        (6, b"swtpm:host=127.0.0.1,port=2321"),
        (6, b"device:/dev/tpmrm0"),
        (7, b"..\x1f.\x1fa\nb"),
        (7, "a b\u{1f}\u{e4}".as_bytes()),
        (8, br#"{"to": "all", "offline": "1h30m"}"#),
        (8, br#"{"sites": ["udc1", "udc2"], "offline": 90}"#),
        (9, b"Bearer hft_AQ"),
    ]
    .map(|(which, bytes)| chosen(which, bytes))
    .to_vec()
}

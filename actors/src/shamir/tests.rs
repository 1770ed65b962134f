//! Both printed samples of Strongbox, the field's laws, and what is no share.

use proptest::prelude::*;

use super::*;

const REVEALED: (&str, [&str; 5]) = (
    "KRn2k/dM+ewe+MlBofqgOrWIelLBE1qYGmDCJO+hSf0=",
    [
        "1:P3/tFzkKMjNTG8ektEuG4qSAzQesz4jlwYk27a8WyEw=",
        "2:QXOuRYedpzhSAq2ZZRz735ePC/3sIO+w1WLeH6gYh3s=",
        "3:VxW1wUnbbOcf4aN8cK3dB4aHvKiB/D3NDosq1uivBso=",
        "4:9G/jCfSaNpj5lfzQq3VK0PHakAVgFx2nFHd5uFrBqy8=",
        "5:4gn4jTrc/Ue0dvI1vsRsCODSJ1ANy8/az56NcRp2Kp4=",
    ],
);
const ROTATED: (&str, [&str; 5]) = (
    "7SH4tPoasvo0WGLD2C53y1e7CLMAWq3vrGCzhxkJ4UM=",
    [
        "1:13OxL/1k10ATlnhzGNe+RvmvzT5a7udzcSQBD96ZXjk=",
        "2:IDlvkypaM5bXK3jARmmHGzlsjCnw6m6R9tX9VMCl5O8=",
        "3:GmsmCC0kVizw5WJwhpBOlpd4SaSqXiQNK5FP3Ac1W5U=",
        "4:tNvfyhhQnDZhUe4g9TprDTfTUdTwFHdiy+PzY4Mybns=",
        "5:jomWUR8u+YxGn/SQNcOigJnHlFmqoD3+FqdB60Si0QE=",
    ],
);

fn three_of_five() -> ValidThreshold {
    ValidThreshold::new(3, 5).unwrap()
}

fn combined(texts: &[&str]) -> Secret<32> {
    let shares = texts.iter().map(|t| t.parse().unwrap()).collect();
    combine(&ValidShares(shares))
}

/// {1,2,3} and {1,4,5} fit every field, since their indices add up to 0: only all ten subsets prove the polynomial.
#[test]
fn all_three_subsets_of_the_printed_shares_give_the_printed_key() {
    for (sealkey, shares) in [REVEALED, ROTATED] {
        let sealkey = decode_key(sealkey).unwrap();
        let mut subsets = 0;
        for mask in (0u8..32).filter(|m| m.count_ones() >= 3) {
            let chosen: Vec<&str> = (0..5).filter(|i| mask >> i & 1 == 1).map(|i| shares[i]).collect();
            assert!(combined(&chosen).ct_eq(&sealkey), "subset {mask:05b}");
            subsets += u32::from(chosen.len() == 3);
        }
        assert_eq!(subsets, 10);
    }
}

#[test]
fn two_shares_do_not_give_the_key() {
    for (sealkey, shares) in [REVEALED, ROTATED] {
        let sealkey = decode_key(sealkey).unwrap();
        for a in 0..5 {
            for b in 0..a {
                assert!(!combined(&[shares[a], shares[b]]).ct_eq(&sealkey));
            }
        }
    }
}

#[test]
fn the_field_is_that_of_0x11d() {
    assert_eq!(multiply(0x80, 2), 0x1D);
    for a in 1..=255 {
        assert_eq!(multiply(a, invert(a)), 1, "{a}");
        assert_eq!(multiply(a, 0), 0);
    }
}

#[test]
fn a_text_of_any_other_form_is_no_share() {
    let y = "P3/tFzkKMjNTG8ektEuG4qSAzQesz4jlwYk27a8WyEw=";
    for (sealkey, shares) in [REVEALED, ROTATED] {
        assert_eq!(&*Share::new(1, decode_key(sealkey).unwrap()).unwrap().expose_text(), &format!("1:{sealkey}"));
        for text in shares {
            assert_eq!(text.parse::<Share>().unwrap().expose_text().as_str(), text);
        }
    }
    assert_eq!(format!("255:{y}").parse::<Share>().unwrap().x(), 255);
    for x in ["", "0", "01", "+1", "-1", " 1", "256", "1 ", "1:1", "x"] {
        assert!(matches!(format!("{x}:{y}").parse::<Share>(), Err(ShamirError::Text)), "{x}");
    }
    for y in ["", "AAAA", &y[..43], &format!("{y}="), &format!(" {y}"), &y.replace('/', "_"), &y.replace("Ew=", "Ex=")]
    {
        assert!(matches!(format!("1:{y}").parse::<Share>(), Err(ShamirError::Text)), "{y}");
    }
}

#[test]
fn debug_shows_the_index_only() {
    assert_eq!(format!("{:?}", REVEALED.1[3].parse::<Share>().unwrap()), "Share(4:[redacted])");
}

#[test]
fn thresholds_and_sets_are_checked() {
    for (threshold, shares) in [(0, 5), (1, 5), (6, 5), (2, 1)] {
        assert!(ValidThreshold::new(threshold, shares).is_err());
    }
    let share = |i: usize| REVEALED.1[i].parse::<Share>().unwrap();
    assert!(matches!(
        ValidShares::new(three_of_five(), vec![share(0), share(1)]),
        Err(ShamirError::TooFew { given: 2, needed: 3 })
    ));
    assert!(matches!(
        ValidShares::new(three_of_five(), vec![share(0), share(1), share(0)]),
        Err(ShamirError::Twice(1))
    ));
    let secret = decode_key(REVEALED.0).unwrap();
    assert!(matches!(
        split(&secret, three_of_five(), &[secret.duplicate()]),
        Err(ShamirError::Coefficients { given: 1, needed: 2 })
    ));
}

fn secret() -> impl Strategy<Value = Secret<32>> {
    any::<[u8; 32]>().prop_map(|bytes| Secret::fill_with(|into| *into = bytes))
}

proptest! {
    #[test]
    fn any_threshold_many_shares_give_the_secret_back(
        key in secret(),
        coefficients in prop::collection::vec(secret(), 1..8),
        more in 0u8..5,
        skip in any::<prop::sample::Index>(),
    ) {
        let needed = u8::try_from(coefficients.len()).unwrap() + 1;
        let threshold = ValidThreshold::new(needed, needed + more).unwrap();
        let mut shares = split(&key, threshold, &coefficients).unwrap();
        prop_assert_eq!(shares.len(), usize::from(needed + more));
        let first = skip.index(usize::from(more) + 1);
        let chosen: Vec<Share> = shares.drain(first..first + usize::from(needed)).collect();
        prop_assert!(combine(&ValidShares::new(threshold, chosen).unwrap()).ct_eq(&key));
    }

    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let _ = text.parse::<Share>();
    }
}

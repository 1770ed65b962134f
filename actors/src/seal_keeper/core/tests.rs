//! Every event in every state, the stories of section 5 of the design, and random ones against a model.

use super::*;
use crate::seal_keeper::record::BootRecord;

mod grid;
mod model;
mod stories;

const HOUR: u64 = 3600;

fn secret(byte: u8) -> Secret<32> {
    Secret::fill_with(|into| into.fill(byte))
}

fn at(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), wall_us: i64::try_from(seconds).unwrap() * 1_000_000 }
}

/// Randomness that `n` stands for; its seal key is `secret(n)`.
fn fresh(n: u8) -> FreshSeal {
    FreshSeal { sealkey: secret(n), coefficients: [secret(n ^ 0x55), secret(n ^ 0xAA)], salt: [n; 32], nonce: [n; 24] }
}

fn start(n: u8) -> Box<FreshStart> {
    Box::new(FreshStart { deployment: DeploymentId([n; 16]), root: secret(n ^ 0xF0), seal: fresh(n) })
}

/// The share of seal key `n` at `x`.
fn share(n: u8, x: u8) -> Share {
    let (_, mut shares) = WrappedRoot::new(1, DeploymentId([0; 16]), &secret(0), &fresh(n));
    shares.remove(usize::from(x) - 1)
}

fn shares(n: u8, xs: &[u8]) -> Proof {
    Proof::Shares(xs.iter().map(|x| share(n, *x)).collect())
}

fn reveal(n: u8) -> Event {
    Event::Reveal { request: RequestId(0), by: Some(Revealer::Loopback), fresh: start(n) }
}

fn unseal(class: Class, proof: Proof) -> Event {
    Event::Unseal { request: RequestId(0), class, proof }
}

fn prove(class: Class, proof: Proof) -> Event {
    Event::ProveSealKey { request: RequestId(0), class, proof }
}

fn seal() -> Event {
    Event::Seal { request: RequestId(0), by: "admin".to_owned() }
}

fn rotate(request: u64, n: u8) -> Event {
    Event::RotateSeal {
        request: RequestId(request),
        by: "admin".to_owned(),
        root: Some(secret(1 ^ 0xF0)),
        fresh: fresh(n),
    }
}

/// A machine and the disk it persists to.
struct World {
    keeper: SealKeeper,
    disk: Option<BootRecord>,
    installed: Option<Secret<32>>,
}

impl World {
    fn uninitialised() -> Self {
        Self { keeper: SealKeeper::load(None, false), disk: None, installed: None }
    }

    /// Revealed with seal key 1.
    fn unsealed() -> Self {
        let mut world = Self::uninitialised();
        assert_eq!(world.step(reveal(1), 0), "initialise audit:ok reply:revealed");
        world
    }

    fn sealed() -> Self {
        let mut world = Self::unsealed();
        assert_eq!(world.step(seal(), 0), "audit:ok swap-out reply:sealed");
        world
    }

    /// Performs the effects and names them.
    fn step(&mut self, event: Event, seconds: u64) -> String {
        let effects = self.keeper.step(event, at(seconds));
        let names: Vec<String> = effects.into_iter().map(|effect| self.perform(effect)).collect();
        names.join(" ")
    }

    fn perform(&mut self, effect: Effect) -> String {
        match effect {
            Effect::PersistBoot(boot) => {
                self.disk = Some(BootRecord::decode(&boot.encode()).unwrap());
                "persist".into()
            }
            Effect::ForgetBoot => {
                self.disk = None;
                "forget".into()
            }
            Effect::Initialise { root, boot, .. } => {
                self.disk = Some(boot);
                self.installed = Some(root);
                "initialise".into()
            }
            Effect::InstallRoot { root, .. } => {
                self.installed = Some(root);
                "install".into()
            }
            Effect::SwapOut => {
                self.installed = None;
                "swap-out".into()
            }
            Effect::Audit(line) => format!("audit:{}", if line.outcome == "ok" { "ok" } else { "refused" }),
            Effect::Reply(_, Ok(answer)) => match answer {
                Answer::Revealed { .. } => "reply:revealed".into(),
                Answer::Rotated { .. } => "reply:rotated".into(),
                Answer::Unsealed => "reply:unsealed".into(),
                Answer::MoreShares { held, threshold } => format!("reply:{held}/{threshold}"),
                Answer::Sealed => "reply:sealed".into(),
                Answer::Proven => "reply:proven".into(),
            },
            Effect::Reply(_, Err(refusal)) => match refusal {
                SealRefusal::Uninitialised => "refused:uninitialised".into(),
                SealRefusal::Sealed => "refused:sealed".into(),
                SealRefusal::Invalid(_) => "refused:invalid".into(),
                SealRefusal::WrongSealKey => "refused:key".into(),
                SealRefusal::WrongShare { wrong } => format!("refused:share{wrong:?}"),
                SealRefusal::TooManyAttempts { retry_after_s } => format!("refused:wait-{retry_after_s}"),
                SealRefusal::AlreadyRevealed => "refused:revealed".into(),
                SealRefusal::NotAllowed => "refused:not-allowed".into(),
                SealRefusal::Damaged => "refused:damaged".into(),
            },
        }
    }

    /// The process dies and starts on what is on disk.
    fn restart(&mut self) {
        self.installed = None;
        self.keeper = SealKeeper::load(self.disk.clone(), false);
    }
}

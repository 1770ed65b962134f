//! Central's seal keeper, pure: uninitialised, sealed with perhaps a few shares in hand, or unsealed.
//!
//! What must be on disk stands before the reply that tells of it. An attempt is counted on disk before its outcome can
//! show, and taken back when it was good, so that no crash between gives a free try. The root key itself is never kept
//! here: [`Effect::InstallRoot`] hands it on, and a rotation brings it along.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_protocol::ids::DeploymentId;
use holdfast_protocol::secret::Secret;

use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::Refusal;
use crate::seal_keeper::record::{BootRecord, WRAPS_MAX, WrappedRoot};
use crate::seal_keeper::wrap::Unwrapped;
use crate::seal_keeper::{Attempts, Class, FreshSeal, FreshStart, Proof, RequestId, Revealer, SHARES, THRESHOLD};
use crate::shamir::{self, Share, ValidShares};

/// How long a good share waits for the others.
pub const SHARE_KEPT: Duration = Duration::from_secs(15 * 60);

/// What happened. The shell has verified the caller's class and right to ask for everything but what a proof decides.
#[derive(Debug)]
pub enum Event {
    /// Somebody wants the first secrets.
    Reveal {
        /// Who waits.
        request: RequestId,
        /// By what right, if any.
        by: Option<Revealer>,
        /// For the new deployment.
        fresh: Box<FreshStart>,
    },
    /// Somebody proves to hold the seal key, to unseal.
    Unseal {
        /// Who waits.
        request: RequestId,
        /// Who calls.
        class: Class,
        /// The seal key or shares.
        proof: Proof,
    },
    /// The same, for an emergency root token.
    ProveSealKey {
        /// Who waits.
        request: RequestId,
        /// Who calls.
        class: Class,
        /// The seal key, or enough shares at once.
        proof: Proof,
    },
    /// An authorised caller wants the node sealed.
    Seal {
        /// Who waits.
        request: RequestId,
        /// Who calls, for the audit line.
        by: String,
    },
    /// An authorised caller wants a new seal key.
    RotateSeal {
        /// Who waits.
        request: RequestId,
        /// Who calls, for the audit line.
        by: String,
        /// From the keyring, while there is one.
        root: Option<Secret<32>>,
        /// For the new seal key.
        fresh: FreshSeal,
    },
    /// The kernel has taken the reply to a rotation.
    ReplySent(RequestId),
    /// The revealed root token was used. Its user is answered after this event's effects.
    RootTokenUsed,
    /// A deadline passed.
    Tick,
}

/// What the shell is to do, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Replace the record on disk, durably.
    PersistBoot(BootRecord),
    /// Remove the record on disk, durably: from here to the next record the node is uninitialised.
    ForgetBoot,
    /// Erase the store; begin it with `boot` in one transaction; install the root key; make the hierarchy (authorities,
    /// REST certificate, root token). What is made for the operator joins the reply to `request`.
    Initialise {
        /// Whose reply.
        request: RequestId,
        /// The new root key.
        root: Secret<32>,
        /// The new record.
        boot: BootRecord,
    },
    /// Open the barrier.
    InstallRoot {
        /// Of this deployment.
        deployment: DeploymentId,
        /// With this key.
        root: Secret<32>,
    },
    /// Close the barrier, wait for its readers, erase the keys.
    SwapOut,
    /// Write an audit line: into the chain while unsealed, else among the pending ones outside the barrier.
    Audit(Line),
    /// Answer a caller.
    Reply(RequestId, Result<Answer, SealRefusal>),
}

/// What a caller gets.
#[derive(Debug)]
pub enum Answer {
    /// The first secrets; the shell adds the root token.
    Revealed {
        /// The seal key.
        sealkey: Secret<32>,
        /// Its shares.
        shares: Vec<Share>,
    },
    /// A new seal key.
    Rotated {
        /// The seal key.
        sealkey: Secret<32>,
        /// Its shares.
        shares: Vec<Share>,
    },
    /// The node is unsealed.
    Unsealed,
    /// The shares were good; more are needed.
    MoreShares {
        /// Good ones in hand.
        held: usize,
        /// Needed.
        threshold: u8,
    },
    /// The node is sealed.
    Sealed,
    /// The caller holds the seal key.
    Proven,
}

/// Why a caller gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealRefusal {
    /// Nothing was revealed yet, so there is nothing to unseal.
    #[error("not initialised")]
    Uninitialised,
    /// Only while unsealed.
    #[error("sealed")]
    Sealed,
    /// Malformed; not counted.
    #[error("{0}")]
    Invalid(&'static str),
    /// Not the seal key; counted.
    #[error("wrong seal key")]
    WrongSealKey,
    /// Not among the shares that were made; counted. Good ones in the same call are kept.
    #[error("wrong share")]
    WrongShare {
        /// Which.
        wrong: Vec<u8>,
    },
    /// This class of caller failed too often within an hour; nothing was looked at.
    #[error("too many attempts, try again in {retry_after_s} s")]
    TooManyAttempts {
        /// Seconds until the next try.
        retry_after_s: u64,
    },
    /// The first secrets have been used, or were revealed to another kind of caller.
    #[error("already revealed")]
    AlreadyRevealed,
    /// Neither from this machine nor with the bootstrap secret.
    #[error("not allowed")]
    NotAllowed,
    /// The key is right, and the record of the root key is damaged.
    #[error("the wrapped root key is damaged")]
    Damaged,
}

impl From<SealRefusal> for Refusal {
    fn from(refusal: SealRefusal) -> Self {
        match refusal {
            SealRefusal::Uninitialised | SealRefusal::Sealed => Self::Sealed,
            SealRefusal::Invalid(why) => Self::Invalid(why.to_owned()),
            SealRefusal::TooManyAttempts { retry_after_s } => Self::TooManyAttempts { retry_after_s },
            SealRefusal::Damaged => Self::Corrupt,
            SealRefusal::WrongSealKey
            | SealRefusal::WrongShare { .. }
            | SealRefusal::AlreadyRevealed
            | SealRefusal::NotAllowed => Self::Denied,
        }
    }
}

/// What anybody may know of the seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether the first secrets were revealed.
    pub initialised: bool,
    /// Whether the barrier is closed.
    pub sealed: bool,
    /// Good shares in hand.
    pub held: usize,
    /// Shares needed.
    pub threshold: u8,
    /// Shares made.
    pub shares: u8,
}

/// A good share, and until when it counts.
#[derive(Debug)]
struct Held {
    share: Share,
    until: Duration,
}

/// Good shares by the version of their seal key and their index.
type Hand = BTreeMap<(u32, u8), Held>;

/// The machine.
#[derive(Debug)]
pub struct SealKeeper {
    /// As last persisted; `None` is uninitialised.
    boot: Option<BootRecord>,
    unsealed: bool,
    hand: Hand,
    /// Seal keys below this version are refused: a rotation in this process has replaced them.
    accepted_from: u32,
    /// Rotations whose reply the kernel has not taken yet, with their version.
    under_way: BTreeMap<RequestId, u32>,
}

impl SealKeeper {
    /// Starts from the record on disk. `unsealed` says whether this process holds a keyring already: true only when
    /// the actor, not the process, starts again.
    pub fn load(boot: Option<BootRecord>, unsealed: bool) -> Self {
        let unsealed = unsealed && boot.is_some();
        let newest = boot.as_ref().map_or(0, |boot| boot.newest().version);
        Self {
            boot,
            unsealed,
            hand: Hand::new(),
            // Started sealed, it can't know which reply of an interrupted rotation arrived, and takes either key.
            accepted_from: if unsealed { newest } else { 0 },
            under_way: BTreeMap::new(),
        }
    }

    /// One event in, effects out, to be performed in their order.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        self.drop_expired(now);
        match event {
            Event::Reveal { request, by, fresh } => self.reveal(request, by, *fresh, now),
            Event::Unseal { request, class, proof } => self.unseal(request, class, proof, now),
            Event::ProveSealKey { request, class, proof } => self.prove(request, class, proof, now),
            Event::Seal { request, by } => self.seal(request, by, now),
            Event::RotateSeal { request, by, root, fresh } => self.rotate(request, by, root, &fresh, now),
            Event::ReplySent(request) => self.reply_sent(request),
            Event::RootTokenUsed => self.root_token_used(),
            Event::Tick => Vec::new(),
        }
    }

    /// When the next share expires, on the monotonic clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.hand.values().map(|held| held.until).min()
    }

    /// What anybody may know.
    pub fn status(&self) -> Status {
        let made = self.boot.as_ref().map(|boot| boot.newest().threshold());
        Status {
            initialised: self.boot.is_some(),
            sealed: !self.unsealed,
            held: self.most_held(),
            threshold: made.map_or(THRESHOLD, |t| t.threshold()),
            shares: made.map_or(SHARES, |t| t.shares()),
        }
    }

    /// The record as last persisted.
    pub fn boot(&self) -> Option<&BootRecord> {
        self.boot.as_ref()
    }

    fn drop_expired(&mut self, now: Now) {
        self.hand.retain(|_, held| held.until > now.mono);
    }

    fn most_held(&self) -> usize {
        let mut counts = BTreeMap::new();
        for (version, _) in self.hand.keys() {
            *counts.entry(version).or_insert(0) += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }

    fn reveal(&mut self, request: RequestId, by: Option<Revealer>, fresh: FreshStart, now: Now) -> Vec<Effect> {
        let Some(by) = by else {
            return refuse(request, "other", "seal.reveal", SealRefusal::NotAllowed, now);
        };
        let actor = match by {
            Revealer::Loopback => "local",
            Revealer::BootstrapSecret => "bootstrap secret",
        };
        if self.boot.as_ref().is_some_and(|boot| boot.used || boot.revealed_by != by) {
            return refuse(request, actor, "seal.reveal", SealRefusal::AlreadyRevealed, now);
        }
        let FreshStart { deployment, root, seal } = fresh;
        let mut effects = Vec::new();
        if self.unsealed {
            effects.push(Effect::SwapOut);
        }
        let attempts = match self.boot.take() {
            Some(boot) => {
                effects.push(Effect::ForgetBoot);
                boot.attempts
            }
            None => Attempts::default(),
        };
        let (wrap, shares) = WrappedRoot::new(1, deployment, &root, &seal);
        let boot = BootRecord::new(deployment, wrap, attempts, by);
        *self = Self::load(Some(boot.clone()), true);
        effects.push(Effect::Initialise { request, root, boot });
        effects.push(Effect::Audit(Line::done(now.wall_us, actor, "seal.reveal", deployment.to_string())));
        effects.push(Effect::Reply(request, Ok(Answer::Revealed { sealkey: seal.sealkey, shares })));
        effects
    }

    fn unseal(&mut self, request: RequestId, class: Class, proof: Proof, now: Now) -> Vec<Effect> {
        const ACTION: &str = "seal.unseal";
        if self.unsealed {
            return vec![Effect::Reply(request, Ok(Answer::Unsealed))];
        }
        let mut effects = match self.begin_attempt(class, &proof, now) {
            Ok(effects) => effects,
            Err(refusal) => return refuse(request, class.as_str(), ACTION, refusal, now),
        };
        let mut hand = std::mem::take(&mut self.hand);
        let judged = self.judge(proof, &mut hand, now);
        self.hand = hand;
        if !judged.failed {
            self.uncount(class);
        }
        match judged.outcome {
            Ok(Some((version, root))) => effects.extend(self.opened(request, class, version, root, now)),
            Ok(None) => {
                effects.extend(self.persist());
                let answer = Answer::MoreShares { held: self.most_held(), threshold: self.status().threshold };
                effects.push(Effect::Reply(request, Ok(answer)));
            }
            Err(refusal) => {
                // A failed attempt is on disk as it stands.
                effects.extend((!judged.failed).then(|| self.persist()).flatten());
                effects.extend(refuse(request, class.as_str(), ACTION, refusal, now));
            }
        }
        effects
    }

    fn opened(&mut self, request: RequestId, class: Class, version: u32, root: Secret<32>, now: Now) -> Vec<Effect> {
        let Some(boot) = &mut self.boot else {
            return Vec::new();
        };
        boot.used = true;
        // Of an interrupted rotation the key that came is the one that people hold.
        boot.wraps.retain(|wrap| wrap.version == version);
        let deployment = boot.deployment;
        self.accepted_from = version;
        self.under_way.clear();
        self.hand.clear();
        self.unsealed = true;
        let mut effects: Vec<Effect> = self.persist().into_iter().collect();
        effects.push(Effect::InstallRoot { deployment, root });
        effects.push(Effect::Audit(Line::done(now.wall_us, class.as_str(), "seal.unseal", "")));
        effects.push(Effect::Reply(request, Ok(Answer::Unsealed)));
        effects
    }

    fn prove(&mut self, request: RequestId, class: Class, proof: Proof, now: Now) -> Vec<Effect> {
        const ACTION: &str = "seal.prove";
        if self.boot.is_some() && !self.unsealed {
            return refuse(request, class.as_str(), ACTION, SealRefusal::Sealed, now);
        }
        let mut effects = match self.begin_attempt(class, &proof, now) {
            Ok(effects) => effects,
            Err(refusal) => return refuse(request, class.as_str(), ACTION, refusal, now),
        };
        let judged = self.judge(proof, &mut Hand::new(), now);
        if !judged.failed {
            self.uncount(class);
        }
        let outcome = judged.outcome.and_then(|root| root.ok_or(SealRefusal::Invalid("too few shares")));
        if let (Ok(_), Some(boot)) = (&outcome, &mut self.boot) {
            boot.used = true;
        }
        if outcome.is_ok() || !judged.failed {
            effects.extend(self.persist());
        }
        match outcome {
            Ok(_) => {
                effects.push(Effect::Audit(Line::done(now.wall_us, class.as_str(), ACTION, "")));
                effects.push(Effect::Reply(request, Ok(Answer::Proven)));
            }
            Err(refusal) => effects.extend(refuse(request, class.as_str(), ACTION, refusal, now)),
        }
        effects
    }

    /// Refuses what is no attempt, or one too many; else counts it, durably, before it is looked at.
    fn begin_attempt(&mut self, class: Class, proof: &Proof, now: Now) -> Result<Vec<Effect>, SealRefusal> {
        let boot = self.boot.as_mut().ok_or(SealRefusal::Uninitialised)?;
        if let Proof::Shares(shares) = proof {
            well_formed(shares, boot.newest().threshold().shares())?;
        }
        boot.attempts.admit(class, now).map_err(|retry_after_s| SealRefusal::TooManyAttempts { retry_after_s })?;
        boot.attempts.count(class, now);
        Ok(self.persist().into_iter().collect())
    }

    /// Tries a proof against every seal key that is accepted now. Good shares go to `hand`.
    fn judge(&self, proof: Proof, hand: &mut Hand, now: Now) -> Judged {
        match proof {
            Proof::SealKey(sealkey) => match self.open_with(&sealkey, self.accepted()) {
                Some(Ok(opened)) => Judged { failed: false, outcome: Ok(Some(opened)) },
                Some(Err(refusal)) => Judged { failed: false, outcome: Err(refusal) },
                None => Judged { failed: true, outcome: Err(SealRefusal::WrongSealKey) },
            },
            Proof::Shares(shares) => {
                let wrong = self.take_good(shares, hand, now);
                let failed = !wrong.is_empty();
                match self.combined(hand) {
                    Some(Err(refusal)) => {
                        // Every share was made by us, and yet they do not fit together: nobody's guess.
                        hand.clear();
                        Judged { failed, outcome: Err(refusal) }
                    }
                    Some(Ok(opened)) => Judged { failed, outcome: Ok(Some(opened)) },
                    None if failed => Judged { failed, outcome: Err(SealRefusal::WrongShare { wrong }) },
                    None => Judged { failed, outcome: Ok(None) },
                }
            }
        }
    }

    /// Moves the good shares to `hand`; the indices of the others.
    fn take_good(&self, shares: Vec<Share>, hand: &mut Hand, now: Now) -> Vec<u8> {
        let mut wrong = Vec::new();
        for share in shares {
            // Nobody's share is of two versions, save by a collision of digests.
            match self.accepted().find(|wrap| wrap.knows(&share)) {
                Some(wrap) => {
                    let until = now.mono.saturating_add(SHARE_KEPT);
                    hand.insert((wrap.version, share.x()), Held { share, until });
                }
                None => wrong.push(share.x()),
            }
        }
        wrong
    }

    /// The root key, as soon as enough shares of one version are in hand.
    fn combined(&self, hand: &Hand) -> Option<Result<(u32, Secret<32>), SealRefusal>> {
        for wrap in self.accepted() {
            let of_version = hand.range((wrap.version, 0)..=(wrap.version, u8::MAX));
            let shares = of_version
                .filter_map(|((_, x), held)| Share::new(*x, held.share.y().duplicate()))
                .collect::<Vec<Share>>();
            if let Ok(shares) = ValidShares::new(wrap.threshold(), shares) {
                let sealkey = shamir::combine(&shares);
                let opened = self.open_with(&sealkey, std::iter::once(wrap));
                return Some(opened.unwrap_or(Err(SealRefusal::Damaged)));
            }
        }
        None
    }

    fn open_with<'a>(
        &self,
        sealkey: &Secret<32>,
        wraps: impl Iterator<Item = &'a WrappedRoot>,
    ) -> Option<Result<(u32, Secret<32>), SealRefusal>> {
        let deployment = self.boot.as_ref()?.deployment;
        for wrap in wraps {
            match wrap.open(sealkey, deployment) {
                Ok(root) => return Some(Ok((wrap.version, root))),
                Err(Unwrapped::Damaged) => return Some(Err(SealRefusal::Damaged)),
                Err(Unwrapped::WrongKey) => {}
            }
        }
        None
    }

    fn accepted(&self) -> impl Iterator<Item = &WrappedRoot> {
        let wraps = self.boot.iter().flat_map(|boot| &boot.wraps);
        wraps.filter(|wrap| wrap.version >= self.accepted_from)
    }

    fn uncount(&mut self, class: Class) {
        if let Some(boot) = &mut self.boot {
            boot.attempts.uncount(class);
        }
    }

    fn seal(&mut self, request: RequestId, by: String, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.unsealed {
            self.unsealed = false;
            // The line belongs into the chain, so it goes before the keys.
            effects.push(Effect::Audit(Line::done(now.wall_us, by, "seal.seal", "")));
            effects.push(Effect::SwapOut);
        }
        effects.push(Effect::Reply(request, Ok(Answer::Sealed)));
        effects
    }

    fn rotate(
        &mut self,
        request: RequestId,
        by: String,
        root: Option<Secret<32>>,
        fresh: &FreshSeal,
        now: Now,
    ) -> Vec<Effect> {
        const ACTION: &str = "seal.rotate";
        let (Some(boot), Some(root), true) = (&mut self.boot, root, self.unsealed) else {
            return refuse(request, &by, ACTION, SealRefusal::Sealed, now);
        };
        let version = boot.newest().version.checked_add(1).expect("nobody rotates four thousand million times");
        let (wrap, shares) = WrappedRoot::new(version, boot.deployment, &root, fresh);
        boot.used = true;
        if boot.wraps.len() == WRAPS_MAX {
            // The oldest is surely in somebody's hands. The one between was revoked by this rotation even if its reply
            // is still under way.
            boot.wraps.remove(1);
        }
        boot.wraps.push(wrap);
        self.accepted_from = version;
        self.under_way.insert(request, version);
        let mut effects: Vec<Effect> = self.persist().into_iter().collect();
        effects.push(Effect::Audit(Line::done(now.wall_us, by, ACTION, "")));
        let sealkey = fresh.sealkey.duplicate();
        effects.push(Effect::Reply(request, Ok(Answer::Rotated { sealkey, shares })));
        effects
    }

    fn reply_sent(&mut self, request: RequestId) -> Vec<Effect> {
        let (Some(version), Some(boot)) = (self.under_way.remove(&request), &mut self.boot) else {
            return Vec::new();
        };
        let before = boot.wraps.len();
        boot.wraps.retain(|wrap| wrap.version >= version);
        if boot.wraps.len() == before { Vec::new() } else { self.persist().into_iter().collect() }
    }

    fn root_token_used(&mut self) -> Vec<Effect> {
        match &mut self.boot {
            Some(boot) if !boot.used => boot.used = true,
            _ => return Vec::new(),
        }
        self.persist().into_iter().collect()
    }

    fn persist(&self) -> Option<Effect> {
        self.boot.clone().map(Effect::PersistBoot)
    }
}

/// What became of a proof: whether it counts as a failure, and the root key with its version once it opened.
struct Judged {
    failed: bool,
    outcome: Result<Option<(u32, Secret<32>)>, SealRefusal>,
}

/// A call names each share once and not more than were made.
fn well_formed(shares: &[Share], made: u8) -> Result<(), SealRefusal> {
    if shares.is_empty() || shares.len() > usize::from(made) {
        return Err(SealRefusal::Invalid("give one share or more, and not more than there are"));
    }
    let mut indices: Vec<u8> = shares.iter().map(Share::x).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() < shares.len() { Err(SealRefusal::Invalid("a share is given twice")) } else { Ok(()) }
}

fn refuse(request: RequestId, actor: &str, action: &str, refusal: SealRefusal, now: Now) -> Vec<Effect> {
    let line = Line::refused(now.wall_us, actor, action, "", refusal.to_string());
    vec![Effect::Audit(line), Effect::Reply(request, Err(refusal))]
}

#[cfg(test)]
mod tests;

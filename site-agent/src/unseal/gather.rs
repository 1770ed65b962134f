//! The last rung: no central, no open sibling, and the site allows it. A host that starts asks the others for their
//! shares of the seal key; with its own, a majority gives the key.

use holdfast_actors::ports::Clock;
use holdfast_actors::seal_keeper::ladder::Rung;
use holdfast_actors::seal_keeper::local::{Gathered, Gatherer, NoShares, may_gather};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::wire::{LocalShare, ShareTerms, Signed, UnsealPermit};

use crate::host::Host;
use crate::unseal::climb::{Asking, Words};

/// No sibling was open: gathers shares, if this site allows it and the host is sealed still.
pub(super) async fn gather(host: &Host) {
    let Ok(Some(permit)) = host.permit() else { return };
    if !permit.local_unseal || !host.seal.is_sealed() {
        return;
    }
    let outcome = match gathered(host, &permit).await {
        Ok(Some(words)) => Ok(words),
        Ok(None) => return,
        Err(why) => Err(why.to_string()),
    };
    host.attempted(Rung::LocalShares, "hosts of this site", outcome).await;
}

/// By whose shares this host was opened; `None`: it was opened otherwise meanwhile.
async fn gathered(host: &Host, permit: &UnsealPermit) -> Result<Option<String>, Words> {
    let epoch = host.may_climb_alone()??;
    let (counters, now) = (host.seal.counters().await?, host.clock.now());
    let id = host.id();
    let gatherer = Gatherer { own: &id, permit, counters, now_us: now.wall_us, epoch };
    let shares = host.shares()?;
    let held: Vec<ShareTerms> = shares.iter().map(|share| share.terms.clone()).collect();
    let terms = may_gather(&gatherer, &held)?;
    let own = shares.iter().find(|share| share.terms == *terms).ok_or(NoShares::NoShare { needed: epoch.0 })?;
    let signed = host.boot.permit()?.ok_or("this host was never given an unseal permit")?;
    let gathering = Gathering { host, permit, signed: &signed, own };
    let mut in_hand = gathering.begun().await?;
    let refused = gathering.ask_others(&mut in_hand).await?;
    let key = in_hand.key();
    let (has, needs) = in_hand.progress();
    let Some(key) = key else {
        *host.ladder.gathered.lock().await = Some(in_hand);
        return Err(format!("{has} of the {needs} shares that it takes are in hand; {}", refused.join("; ")).into());
    };
    if !host.seal.is_sealed() {
        return Ok(None);
    }
    match host.seal.open_held(&key, &format!("shares of {has} hosts"), &|| host.may_climb_alone()).await? {
        true => Ok(Some(format!("by shares of {has} of this site's {} hosts", own.terms.holders.len()))),
        false => Err("the shares give a key that does not open this host".into()),
    }
}

struct Gathering<'a> {
    host: &'a Host,
    permit: &'a UnsealPermit,
    signed: &'a Signed,
    own: &'a LocalShare,
}

impl Gathering<'_> {
    /// What is in hand from the last try, if that was lately, or this host's own share.
    async fn begun(&self) -> Result<Gathered, Words> {
        let now = self.host.clock.now().mono;
        let before = self.host.ladder.gathered.lock().await.take();
        if let Some(before) = before.filter(|before| before.goes_on(&self.own.terms, now)) {
            return Ok(before);
        }
        let opened = self.host.open_share(self.own, &*self.host.tpm).await;
        let share = opened.map_err(|fault| format!("this host's own share does not open: {fault}"))?;
        let mut in_hand = Gathered::new(self.own.terms.clone(), now);
        match in_hand.take(&self.own.terms.host.host, share) {
            true => Ok(in_hand),
            false => Err("this host's own share is not what central has signed".into()),
        }
    }

    /// Asks one host after the other until there are enough; why those did not give theirs that were asked in vain.
    async fn ask_others(&self, in_hand: &mut Gathered) -> Result<Vec<String>, Words> {
        let mut refused = Vec::new();
        for holder in &self.own.terms.holders {
            if in_hand.key().is_some() || !self.host.seal.is_sealed() {
                break;
            }
            if in_hand.has(&holder.name) {
                continue;
            }
            let Some(sibling) = self.permit.siblings.iter().find(|sibling| sibling.name == holder.name) else {
                refused.push(format!("{}: it has not joined", holder.name));
                continue;
            };
            let (permit, signed, epoch) = (self.permit, self.signed, self.own.terms.epoch);
            let asking = Asking { host: self.host, permit, signed, epoch, sibling, set: Some(self.own.terms.set) };
            match asking.secret().await {
                Ok(given) => {
                    let taken =
                        Secret::from_slice(given.expose()).is_some_and(|given| in_hand.take(&holder.name, given));
                    if !taken {
                        refused.push(format!("{}: what it gave is not its share", holder.name));
                    }
                }
                Err(why) => refused.push(format!("{}: {why}", holder.name)),
            }
            // It may have shown what central holds against this host.
            self.host.may_climb_alone()??;
        }
        Ok(refused)
    }
}

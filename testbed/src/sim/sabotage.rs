//! Deliberately broken cores, to show that the checkers work. Each is a wrapper of the simulation around a core: no
//! product code has a switch for it.

use holdfast_actors::distribution::Copy;
use holdfast_actors::ports::Clock;
use holdfast_actors::rows::{Batch, ReadRows};
use holdfast_actors::secret_store::{CurrentSecret, DepositBox, Marks, Stamp};
use holdfast_protocol::ids::Realm;
use holdfast_protocol::secret::SecretBytes;
use holdfast_site_agent::local::Local;

use crate::sim::at_once;
use crate::sim::world::World;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A row outside the barrier holds a secret in clear.
    PlaintextRow,
    /// A write is answered before it is committed.
    AnswerBeforeCommit,
    /// A restarted central finds an older state than the one it left.
    LoseCommits,
    /// The fence is not raised for connections that are open when it is committed.
    ForgetFence,
    /// A replica applies whatever bundle comes.
    SkipJudge,
    /// A host takes any head.
    TakeLowerHead,
    /// Central does not look at the heads that hosts show.
    IgnoreNewerHead,
    /// A replica writes a row of a tenant into another's content.
    LeakRow,
    /// A box goes where it was not placed.
    LeakPlacement,
    /// A key is released at the hello.
    ReleaseWithoutPass,
    /// A change leaves no audit line.
    DropAuditLine,
    /// A site that can't be reached stops distribution to all.
    StallOthers,
    /// Reads at a site go on after the lease's end.
    ServeAfterLease,
    /// Reads at a site stop with the WAN.
    SealWithoutWan,
    /// Now and then a read at a site does not find what is there.
    RefuseReads,
    /// A nonce is drawn twice.
    RepeatNonce,
    /// Central does not take in that a host has applied something.
    LoseAnswers,
    /// A host that has lost central when all is well again does not look for it.
    GiveUp,
}

impl Sabotage {
    /// All of them, with the checker that is to catch each.
    pub const ALL: [(Self, &'static str); 18] = [
        (Self::PlaintextRow, "INV-1"),
        (Self::AnswerBeforeCommit, "INV-2"),
        (Self::LoseCommits, "INV-2"),
        (Self::ForgetFence, "INV-3"),
        (Self::SkipJudge, "INV-4"),
        (Self::TakeLowerHead, "INV-4"),
        (Self::IgnoreNewerHead, "INV-4"),
        (Self::LeakRow, "INV-5"),
        (Self::LeakPlacement, "INV-5"),
        (Self::ReleaseWithoutPass, "INV-6"),
        (Self::DropAuditLine, "INV-7"),
        (Self::StallOthers, "INV-9"),
        (Self::ServeAfterLease, "INV-9"),
        (Self::SealWithoutWan, "INV-9"),
        (Self::RefuseReads, "INV-9"),
        (Self::RepeatNonce, "INV-10"),
        (Self::LoseAnswers, "converges"),
        (Self::GiveUp, "INV-9"),
    ];
}

impl World {
    /// Something lies at a host that has no business there.
    pub fn leak(&mut self, host: usize) {
        let Some(local) = self.hosts[host].local.clone() else { return };
        let Ok(snapshot) = local.barrier.snapshot() else { return };
        let Ok(copies) = snapshot.list::<Copy>(Realm::NODE, &[]) else { return };
        for row in copies {
            let known = self.model.tenants.iter().position(|tenant| tenant.name.as_str() == row.name());
            let (Some(realm), Some(tenant)) = (row.value.realm, known) else { continue };
            if self.sabotaged(Sabotage::LeakRow) {
                self.leak_row(&local, realm, tenant);
            } else {
                self.leak_box(host, &local, realm, tenant);
            }
        }
    }

    fn leak_row(&mut self, local: &Local, realm: Realm, tenant: usize) {
        let name = &self.model.tenants[tenant].name;
        let others = self.model.written.iter().filter(|(of, _)| *of != name);
        let Some(value) = others.flat_map(|(_, values)| values).next().cloned() else { return };
        let stamp = Stamp { by: "nobody".to_owned(), at_us: 0 };
        let _ = at_once(local.barrier.run(move |_| {
            let data = SecretBytes::new(format!("{{\"v\":\"{value}\"}}").into_bytes());
            let (created, updated) = (stamp.clone(), stamp.clone());
            let secret = CurrentSecret {
                data,
                version_id: "1".to_owned(),
                created,
                updated,
                version: 1,
                marks: Marks::default(),
            };
            let mut batch = Batch::housekeeping();
            batch.put(realm, &["b0", "s0"], &secret);
            Ok((batch, ()))
        }));
    }

    fn leak_box(&mut self, host: usize, local: &Local, realm: Realm, tenant: usize) {
        let (of, here) = (&self.model.tenants[tenant], &self.hosts[host].id.site);
        let elsewhere = of.boxes.iter().find(|(_, of)| !of.ever_all && !of.ever.contains(here));
        let Some((slug, _)) = elsewhere else { return };
        let Ok(snapshot) = self.central.barrier.snapshot() else { return };
        let Ok(Some(row)) = snapshot.read::<DepositBox>(of.realm, &[slug]) else { return };
        let at_us = local.clock.now().wall_us;
        let _ = at_once(local.barrier.run(move |_| {
            let mut leaked = row.value.clone();
            leaked.updated.at_us = at_us;
            let mut batch = Batch::housekeeping();
            batch.put(realm, &[&leaked.slug], &leaked);
            Ok((batch, ()))
        }));
    }
}

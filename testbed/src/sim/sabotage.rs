//! Deliberately broken cores, to show that the checkers work. Each is a wrapper of the simulation around a core: no
//! product code has a switch for it.

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
    /// A nonce is drawn twice.
    RepeatNonce,
    /// Central forgets a host that has fallen behind.
    NeverCatchUp,
}

impl Sabotage {
    /// All of them, with the checker that is to catch each.
    pub const ALL: [(Self, &'static str); 16] = [
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
        (Self::RepeatNonce, "INV-10"),
        (Self::NeverCatchUp, "converges"),
    ];
}

/// A fault that is put into the code on purpose, to see whether the simulation finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// A publisher is told that its message is stored before it is committed.
    AcknowledgeBeforeCommit,
    /// Disks say that they have synced, and have not.
    SkipFsync,
    /// What a replica votes is not written down.
    ForgetVote,
    /// Messages are matched against routes of any age, and acknowledged.
    StaleRoutes,
    /// What was sent on an earlier connection is sent again without DUP.
    DropDup,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::AcknowledgeBeforeCommit, Self::SkipFsync, Self::ForgetVote, Self::StaleRoutes, Self::DropDup];
}

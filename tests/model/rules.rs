//! What a model is made of: how much may happen in it, and which rule of the protocol it does without.

/// A rule of the protocol that can be taken away, so as to see what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// L1 judges an entry by its stamp. Without: a message deletes what L1 holds.
    StampsInL1,
    /// L2 judges an entry by its stamp. Without: an announcement deletes the entry.
    StampsInL2,
    /// The stamp is taken before the load. Without: after it.
    StampBeforeLoad,
    /// The database is read after the stamp is taken. Without: in a snapshot from before.
    SnapshotAfterStamp,
    /// A load fills L1 only in the generation in which it began.
    GenerationOfLoads,
    /// What a writer has left unannounced is found in the journal.
    Journal,
    /// Numbers tell that a message was lost.
    Sequence,
    /// A lease vouches from the time when its proof was asked for. Without: from the answer.
    LeaseFromQuestion,
    /// An acknowledged write has been heard by the instance that acknowledges it.
    HeardBeforeAcknowledged,
    /// A tag without a version is given the present sequence. Without: it was never invalidated.
    MissingVersionIsPresent,
    /// A load under way is shared only by readers who come before the next invalidation.
    FlightsJudged,
    /// On a new connection, the journal's unannounced rows are announced before L2 is used.
    AnnouncedBeforeUse,
    /// No shared generation begins while something of one's own is unannounced.
    OwnAnnouncedFirst,
    /// Nor while something is unannounced that the journal has told.
    HeardAnnouncedFirst,
    /// What was announced in another life of Redis is announced in one's own.
    ElsewhereAnnouncedHere,
    /// A row of the journal is marked once it is announced in Redis. Without: also if it only could have been.
    OnlyAnnouncedIsMarked,
    /// What is known of one life of Redis says nothing about another.
    Epoch,
    /// A reader with a token passes over what may be older.
    Token,
}

/// How often what may happen. Everything else happens as often as it can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Writes on each instance.
    pub(crate) writes: [u8; 2],
    /// Loads at a time on each instance.
    pub(crate) flights: [u8; 2],
    /// Messages of the bus that are lost, and answers to announcements.
    pub(crate) losses: u8,
    /// Writers that die between commit and announcement.
    pub(crate) deaths: u8,
    /// Versions of the tag that Redis forgets.
    pub(crate) evictions: u8,
    /// How often an instance cannot reach Redis any more.
    pub(crate) cuts: [u8; 2],
    /// How often Redis is emptied, restarted or replaced.
    pub(crate) failovers: u8,
    /// Snapshots of Redis, one of which it may come back with.
    pub(crate) snapshots: u8,
    /// Processes that end and start anew.
    pub(crate) restarts: u8,
    /// The former Redis goes on serving those who are still connected to it.
    pub(crate) split: bool,
    /// Connecting, polling, looking in L2 and filling the tiers take several steps, between which others come; and the
    /// relay leaves no time to a writer who is alive.
    pub(crate) slow: bool,
    /// Without Redis, an instance hears by reading the journal.
    pub(crate) journal_mode: bool,
    /// Readers bring tokens.
    pub(crate) tokens: bool,
    /// Readers share loads under way.
    pub(crate) sharing: bool,
}

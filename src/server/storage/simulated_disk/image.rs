//! The files as they are: what the page cache shows, and what of it a loss of power may leave.

use std::collections::BTreeSet;

/// Both files, between two processes or two losses of power.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    pub bets: BetsFile,
    pub state: StateFile,
}

impl Image {
    /// Returns what the next process may find. After a kill that is what the page cache shows. After a loss of power it is
    /// anything that may be on the platter.
    pub fn worlds(&self) -> Vec<Image> {
        let mut worlds = vec![self.clone()];
        worlds.extend(self.survivors());
        worlds
    }

    /// Returns what a loss of power may leave.
    pub fn survivors(&self) -> Vec<Image> {
        let states = self.state.survivors();
        let with_states = |bets: Vec<u8>| {
            let bets = BetsFile { platter: bets, ..BetsFile::default() };
            states.iter().map(move |state| Image {
                bets: bets.clone(),
                state: StateFile { platter: state.clone(), ..StateFile::default() },
            })
        };
        self.bets.survivors().into_iter().flat_map(with_states).collect()
    }

    /// Tells whether all that a process can read would outlast a loss of power.
    pub fn is_settled(&self) -> bool {
        self.bets.survivors() == BTreeSet::from([self.bets.cached()])
            && self.state.survivors() == BTreeSet::from([self.state.cached()])
    }
}

/// The bets file.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BetsFile {
    /// What was made to last.
    platter: Vec<u8>,
    /// What was done since, in its order.
    pending: Vec<Change>,
    /// A sync has failed, and the kernel has called the pages clean: no later sync writes what is pending.
    pub doubtful: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Append(Vec<u8>),
    Truncate(usize),
}

impl BetsFile {
    pub fn append(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.pending.push(Change::Append(bytes.to_vec()));
        }
    }

    pub fn truncate(&mut self, length: usize) {
        self.pending.push(Change::Truncate(length));
        // What is doubtful is gone with its pages.
        self.doubtful &= length > self.platter.len();
    }

    /// Another program changes a bit of what was made to last.
    pub fn flip(&mut self, bit: usize) {
        self.platter[bit / 8] ^= 1 << (bit % 8);
    }

    pub fn sync(&mut self) {
        if !self.doubtful {
            self.platter = self.cached();
            self.pending.clear();
        }
    }

    pub fn failed_sync(&mut self) {
        self.doubtful = !self.pending.is_empty();
    }

    /// What a process reads.
    pub fn cached(&self) -> Vec<u8> {
        let mut bytes = self.platter.clone();
        for change in &self.pending {
            change.apply(&mut bytes);
        }
        bytes
    }

    /// Returns what may be on the platter: the file after any of the changes, or after a first part of an append.
    pub fn survivors(&self) -> BTreeSet<Vec<u8>> {
        let mut bytes = self.platter.clone();
        let mut found = BTreeSet::from([bytes.clone()]);
        for change in &self.pending {
            if let Change::Append(more) = change {
                found.extend((0..more.len()).map(|part| [&bytes, &more[..part]].concat()));
            }
            change.apply(&mut bytes);
            found.insert(bytes.clone());
        }
        found
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Append(more) => bytes.extend_from_slice(more),
            Self::Truncate(length) => bytes.truncate(*length),
        }
    }
}

/// The state file.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateFile {
    /// What was made to last.
    platter: Option<Vec<u8>>,
    /// What has replaced it since, in its order.
    pending: Vec<Vec<u8>>,
}

impl StateFile {
    pub fn replace(&mut self, bytes: &[u8]) {
        self.pending.push(bytes.to_vec());
    }

    pub fn sync_folder(&mut self) {
        self.platter = self.cached();
        self.pending.clear();
    }

    /// What a process reads.
    pub fn cached(&self) -> Option<Vec<u8>> {
        self.pending.last().or(self.platter.as_ref()).cloned()
    }

    /// Returns what may be on the platter: any of these files.
    pub fn survivors(&self) -> BTreeSet<Option<Vec<u8>>> {
        let pending = self.pending.iter().cloned().map(Some);
        pending.chain([self.platter.clone()]).collect()
    }
}

//! The ledger over a disk that is made up: stopped at every step, and reopened with everything that could be left.
//!
//! | file | what |
//! |---|---|
//! | this one | the disk, as processes see it: each call, and what goes wrong with it |
//! | [`image`] | the files, as the page cache shows them and as a loss of power may leave them |
//! | [`workload`] | what clients ask, what must come of it, and who counts again |
//! | [`service`] | the ledger, driven group by group, each answer audited |
//! | [`crashes`] | the process is killed, or the power fails, at every step |
//! | [`faults`] | every step fails, and the service goes on, or ends |
//! | [`room`] | the disk is too small for some requests, and the others are stored |

mod crashes;
mod faults;
mod image;
mod room;
mod service;
mod workload;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::rc::Rc;

use nix::errno::Errno;

use self::image::Image;
use super::disk::{Disk, FileChanged};

/// A call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// Of so many bytes.
    Append(usize),
    Sync,
    Cut,
    /// In one step: what is written before the rename is in another file, which the next start removes.
    ReplaceState,
    SyncFolder,
}

impl Call {
    /// Returns in how many steps it does its work: it can stop before each of them, and after the last.
    fn steps(self) -> usize {
        if let Self::Append(bytes) = self { bytes } else { 1 }
    }
}

/// What goes wrong with one call, after `done` of its steps.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// The process is killed: later calls change nothing.
    Stop { done: usize },
    /// The call fails.
    Fail { done: usize, errno: Errno },
}

/// The disk. Clones are of the same disk, so that a test can look at it while a ledger has it.
#[derive(Debug, Clone)]
pub struct SimulatedDisk(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    image: Image,
    calls: Vec<Call>,
    troubles: BTreeMap<usize, Trouble>,
    stopped: bool,
    /// How long the bets file can be.
    room: usize,
    /// Whether the next sync fails.
    sync_fails: bool,
}

impl SimulatedDisk {
    /// Makes a disk on which those calls, counted from 0, have trouble.
    fn new<const N: usize>(image: Image, troubles: [(usize, Trouble); N]) -> Self {
        let troubles = troubles.into();
        let inner =
            Inner { image, calls: Vec::new(), troubles, stopped: false, room: usize::MAX, sync_fails: false };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Limits the bets file to so many bytes.
    fn limit(&self, room: usize) {
        self.0.borrow_mut().room = room;
    }

    fn fail_next_sync(&self) {
        self.0.borrow_mut().sync_fails = true;
    }

    fn image(&self) -> Image {
        self.0.borrow().image.clone()
    }

    fn calls(&self) -> Vec<Call> {
        self.0.borrow().calls.clone()
    }

    fn is_stopped(&self) -> bool {
        self.0.borrow().stopped
    }

    /// Makes a call of one step.
    fn step(&self, call: Call, work: impl FnOnce(&mut Image)) -> io::Result<()> {
        self.call(call, |image, done| {
            if done > 0 {
                work(image);
            }
        })
    }

    /// Makes a call: `work` does so many of its steps.
    fn call(&self, call: Call, work: impl FnOnce(&mut Image, usize)) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        if inner.stopped {
            return Err(Errno::EIO.into());
        }
        let index = inner.calls.len();
        inner.calls.push(call);
        match inner.troubles.get(&index).copied().or_else(|| inner.general_trouble(call)) {
            None => {
                work(&mut inner.image, call.steps());
                Ok(())
            }
            Some(Trouble::Stop { done }) => {
                work(&mut inner.image, done);
                inner.stopped = true;
                Err(Errno::EIO.into())
            }
            Some(Trouble::Fail { done, errno }) => {
                work(&mut inner.image, done);
                if call == Call::Sync {
                    inner.image.bets.failed_sync();
                }
                Err(errno.into())
            }
        }
    }
}

impl Inner {
    /// Returns trouble that does not depend on the number of the call.
    fn general_trouble(&mut self, call: Call) -> Option<Trouble> {
        let room = self.room.saturating_sub(self.image.bets.cached().len());
        let fails = match call {
            Call::Append(bytes) if bytes > room => Some((room, Errno::ENOSPC)),
            Call::Sync if std::mem::take(&mut self.sync_fails) => Some((0, Errno::EIO)),
            _ => None,
        };
        fails.map(|(done, errno)| Trouble::Fail { done, errno })
    }
}

impl Disk for SimulatedDisk {
    fn check(&self, length: u64) -> Result<(), FileChanged> {
        let found = self.0.borrow().image.bets.cached().len() as u64;
        if found == length { Ok(()) } else { Err(FileChanged::Length { found, expected: length }) }
    }

    fn append(&mut self, rows: &[u8]) -> io::Result<()> {
        self.call(Call::Append(rows.len()), |image, done| image.bets.append(&rows[..done]))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step(Call::Sync, |image| image.bets.sync())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        self.step(Call::Cut, |image| image.bets.truncate(length))
    }

    fn bets(&self) -> io::Result<impl Read> {
        Ok(Cursor::new(self.0.borrow().image.bets.cached()))
    }

    fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().image.state.cached())
    }

    fn replace_state(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.step(Call::ReplaceState, |image| image.state.replace(bytes))
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.step(Call::SyncFolder, |image| image.state.sync_folder())
    }
}

//! Bytes that related processes share, and a robust process-shared mutex: see `pthread_mutexattr_setpshared(3)`,
//! `pthread_mutexattr_setrobust(3)`.
//!
//! If a process dies with the mutex locked, the next one that locks it repairs it. The bytes are then as the dead process
//! left them, so users must cope with any of its stores missing.
//!
//! glibc trusts the memory of a mutex. The mutex is sound as long as no process that shares it writes there by other means
//! than these functions. The bytes need no such trust: they are atomic, so each process may write any of them at any time.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU8;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::MapFlags;

use super::memory::Mapping;

/// What the mapping contains.
#[repr(C)]
struct Shared<const N: usize> {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    bytes: [AtomicU8; N],
}

/// `N` bytes and their mutex. Forked children share both.
#[derive(Debug)]
pub struct SharedMutex<const N: usize>(Mapping);

impl<const N: usize> SharedMutex<N> {
    /// Maps bytes that are all 0, unlocked.
    pub fn new() -> io::Result<Self> {
        let this = Self(Mapping::new(size_of::<Shared<N>>(), MapFlags::MAP_SHARED)?);
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: `attributes` points to writable memory of the right type.
        check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: `attributes` has been initialised.
        check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: the mutex is zeroed memory that no other process has seen yet, and it never moves: it is in the mapping.
        check(unsafe { libc::pthread_mutex_init(this.mutex(), attributes) })?;
        // SAFETY: `attributes` has been initialised and is not used again.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) })?;
        Ok(this)
    }

    fn shared(&self) -> &Shared<N> {
        // SAFETY: the mapping has this size, is page-aligned and lives as long as `self`. All bytes are valid atomics. The
        // mutex is behind UnsafeCell, so this borrow claims nothing about what it contains.
        unsafe { self.0.start().as_ref() }
    }

    fn mutex(&self) -> *mut libc::pthread_mutex_t {
        self.shared().mutex.get()
    }

    /// The bytes, for reads and writes with or without the lock.
    pub fn bytes(&self) -> &[AtomicU8; N] {
        &self.shared().bytes
    }

    /// Locks the mutex; none if it is locked already.
    pub fn try_lock(&self) -> io::Result<Option<Guard<'_, N>>> {
        // SAFETY: the mutex was initialised in `new` and lives as long as `self`.
        self.locked(unsafe { libc::pthread_mutex_trylock(self.mutex()) })
    }

    /// Locks the mutex, and waits for it for `limit` by the wall clock; none if it is still locked then.
    pub fn lock_within(&self, limit: Duration) -> io::Result<Option<Guard<'_, N>>> {
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + limit;
        let until = libc::timespec {
            tv_sec: until.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: until.subsec_nanos().into(),
        };
        // SAFETY: the mutex was initialised in `new` and lives as long as `self`; `until` outlives the call.
        self.locked(unsafe { libc::pthread_mutex_timedlock(self.mutex(), &raw const until) })
    }

    /// Makes a guard after an attempt to lock that returned `code`.
    fn locked(&self, code: libc::c_int) -> io::Result<Option<Guard<'_, N>>> {
        match Errno::from_raw(code) {
            Errno::EBUSY | Errno::ETIMEDOUT => return Ok(None),
            // SAFETY: this process has just locked the mutex, and its state is "inconsistent", as this call demands.
            Errno::EOWNERDEAD => check(unsafe { libc::pthread_mutex_consistent(self.mutex()) })?,
            _ => check(code)?,
        }
        Ok(Some(Guard(self)))
    }
}

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct Guard<'a, const N: usize>(&'a SharedMutex<N>);

impl<const N: usize> Drop for Guard<'_, N> {
    fn drop(&mut self) {
        // SAFETY: a guard exists only while this thread holds the lock: it cannot go to another thread.
        unsafe { libc::pthread_mutex_unlock(self.0.mutex()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::ForkResult;
    use std::sync::atomic::Ordering;

    /// Has a child lock the mutex, store a 7 and die with it locked.
    fn lock_in_a_child_that_dies(shared: &SharedMutex<1>) {
        // SAFETY: the child does nothing that takes a lock of this process or memory from its allocator.
        #[expect(clippy::disallowed_methods, reason = "the tests have threads, which `fork_child` refuses")]
        match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
            }
            ForkResult::Child => {
                let locked = shared.try_lock();
                shared.bytes()[0].store(7, Ordering::SeqCst);
                let failed = !matches!(locked, Ok(Some(_)));
                // SAFETY: ends the process at once, with the lock held.
                unsafe { libc::_exit(i32::from(failed)) }
            }
        }
    }

    #[test]
    fn a_mutex_whose_owner_died_is_repaired_for_the_next_and_stays_good() {
        let shared = SharedMutex::new().unwrap();
        for waits in [false, true] {
            lock_in_a_child_that_dies(&shared);
            let locked = if waits { shared.lock_within(Duration::from_secs(5)) } else { shared.try_lock() };
            let guard = locked.unwrap().unwrap();
            assert_eq!(shared.bytes()[0].swap(0, Ordering::SeqCst), 7);
            assert!(shared.try_lock().unwrap().is_none());
            assert!(shared.lock_within(Duration::from_millis(10)).unwrap().is_none());
            drop(guard);
            assert!(shared.try_lock().unwrap().is_some());
        }
    }
}

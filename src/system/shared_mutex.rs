//! Bytes that related processes share, under a robust process-shared mutex: see `mmap(2)`,
//! `pthread_mutexattr_setrobust(3)`, `pthread_mutexattr_setpshared(3)`.
//!
//! If a process dies with the mutex locked, the next one repairs it. The bytes are then as the dead process left them, so
//! users must cope with any of its stores missing.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The start of the mapping; the bytes follow it.
#[repr(C)]
struct Head {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    flag: AtomicBool,
}

/// The bytes and their mutex. Forked children share both.
#[derive(Debug)]
pub struct SharedMutex {
    mapping: NonNull<Head>,
    length: usize,
}

impl SharedMutex {
    /// Maps `length` zeroed bytes, unlocked, with the flag cleared.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(length: usize) -> io::Result<Self> {
        let size = NonZeroUsize::MIN.saturating_add(size_of::<Head>() - 1 + length);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let mapping = unsafe {
            mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)
        }?;
        let this = Self { mapping: mapping.cast(), length };
        this.init_mutex()?;
        Ok(this)
    }

    fn head(&self) -> &Head {
        // SAFETY: the mapping lives as long as `self`, is page-aligned, and all-zero bytes are a valid Head; what
        // changes in it is behind UnsafeCell and AtomicBool.
        unsafe { self.mapping.as_ref() }
    }

    fn init_mutex(&self) -> io::Result<()> {
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: `attributes` points to writable memory of the right type.
        check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: `attributes` has been initialised.
        check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: the mutex is zeroed memory that nobody else has seen yet, and it never moves: it lies in the mapping.
        check(unsafe { libc::pthread_mutex_init(self.head().mutex.get(), attributes) })?;
        // SAFETY: `attributes` has been initialised and is not used again.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) })
    }

    /// A flag that all these processes see, with or without the lock.
    #[must_use]
    pub fn flag(&self) -> &AtomicBool {
        &self.head().flag
    }

    /// Locks the mutex, if no other process holds it.
    ///
    /// # Errors
    /// None that a correct use gives.
    pub fn try_lock(&self) -> io::Result<Option<Guard<'_>>> {
        // SAFETY: the mutex was initialised in `new` and lives as long as `self`.
        let code = unsafe { libc::pthread_mutex_trylock(self.head().mutex.get()) };
        self.locked(code)
    }

    /// Locks the mutex, and waits for it up to `limit` by the wall clock.
    ///
    /// # Errors
    /// None that a correct use gives.
    pub fn lock_within(&self, limit: Duration) -> io::Result<Option<Guard<'_>>> {
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + limit;
        let until = libc::timespec {
            tv_sec: until.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: until.subsec_nanos().into(),
        };
        // SAFETY: the mutex was initialised in `new` and lives as long as `self`; `until` outlives the call.
        let code = unsafe { libc::pthread_mutex_timedlock(self.head().mutex.get(), &raw const until) };
        self.locked(code)
    }

    fn locked(&self, code: libc::c_int) -> io::Result<Option<Guard<'_>>> {
        match Errno::from_raw(code) {
            _ if code == 0 => Ok(Some(Guard { shared: self })),
            Errno::EOWNERDEAD => {
                // SAFETY: this process has just locked the mutex, and it is in the inconsistent state.
                check(unsafe { libc::pthread_mutex_consistent(self.head().mutex.get()) })?;
                Ok(Some(Guard { shared: self }))
            }
            Errno::EBUSY | Errno::ETIMEDOUT => Ok(None),
            error => Err(error.into()),
        }
    }

    fn bytes(&self) -> *mut [u8] {
        // SAFETY: the mapping has `length` bytes behind its Head.
        let start = unsafe { self.mapping.add(1) };
        NonNull::slice_from_raw_parts(start.cast(), self.length).as_ptr()
    }
}

impl Drop for SharedMutex {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no guard is left, as each borrows `self`. Other processes keep theirs.
        unsafe { munmap(self.mapping.cast(), size_of::<Head>() + self.length) }.unwrap_or_default();
    }
}

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct Guard<'a> {
    shared: &'a SharedMutex,
}

impl Deref for Guard<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the lock is held, so no other process or guard writes; the bytes live as long as `shared`.
        unsafe { &*self.shared.bytes() }
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the lock is held, so no other process or guard reads or writes; the bytes live as long as `shared`.
        unsafe { &mut *self.shared.bytes() }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: a guard exists only while this process holds the lock.
        unsafe { libc::pthread_mutex_unlock(self.shared.head().mutex.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::ForkResult;

    #[test]
    fn what_is_written_under_the_lock_is_read_under_the_next() {
        let shared = SharedMutex::new(10).unwrap();
        shared.try_lock().unwrap().unwrap()[9] = 7;
        let guard = shared.lock_within(Duration::from_millis(10)).unwrap().unwrap();
        assert_eq!((guard.len(), guard[9]), (10, 7));
        assert!(shared.try_lock().unwrap().is_none());
        assert!(shared.lock_within(Duration::from_millis(10)).unwrap().is_none());
    }

    /// Has a child lock the mutex, store a 7 and die with it locked.
    fn lock_in_a_child_that_dies(shared: &SharedMutex) {
        // SAFETY: the child does nothing that takes a lock of this process or memory from its allocator.
        #[expect(clippy::disallowed_methods, reason = "the tests have threads, which `fork_child` refuses")]
        match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
            }
            ForkResult::Child => {
                let stored = match shared.try_lock() {
                    Ok(Some(mut guard)) => {
                        guard.first_mut().map(|byte| *byte = 7).map(|()| std::mem::forget(guard))
                    }
                    _ => None,
                };
                // SAFETY: ends the process at once, with the lock held.
                unsafe { libc::_exit(i32::from(stored.is_none())) }
            }
        }
    }

    #[test]
    fn a_mutex_whose_owner_died_is_repaired_for_the_next_and_stays_good() {
        let shared = SharedMutex::new(1).unwrap();
        for waits in [false, true] {
            lock_in_a_child_that_dies(&shared);
            let locked = if waits { shared.lock_within(Duration::from_secs(5)) } else { shared.try_lock() };
            let guard = locked.unwrap().unwrap();
            assert_eq!(*guard, [7]);
            assert!(shared.try_lock().unwrap().is_none());
            drop(guard);
            assert!(shared.try_lock().unwrap().is_some());
        }
    }
}

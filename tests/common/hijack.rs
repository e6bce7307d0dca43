//! A process whose code was taken over: it makes the system calls that the test chooses, with its own rights, under its own
//! filters. It needs root, as it traces the process (`ptrace(2)`).

use std::fs::File;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

use super::{PATIENCE, await_some, await_within};

/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// The system calls in which a process of the server, or `sleep`, waits.
const WAITS: [libc::c_long; 4] =
    [libc::SYS_poll, libc::SYS_ppoll, libc::SYS_epoll_wait, libc::SYS_clock_nanosleep];
/// How many bytes [`Hijacked::put`] has room for in all.
const SCRATCH: usize = 64 * 1024;

/// A stopped process. It goes on where it was when this goes out of scope.
#[derive(Debug)]
pub struct Hijacked {
    pid: Pid,
    memory: File,
    /// Its registers while it waits in a system call. The instruction pointer is behind that call.
    saved: user_regs_struct,
    /// Memory of its own for the arguments of its calls, and how much of it is used.
    scratch: u64,
    used: usize,
    /// The thread that has attached is the tracer, and no other thread can be.
    not_send: PhantomData<*const ()>,
}

impl Hijacked {
    /// Stops a process that waits in a system call. None unless this process is root.
    #[track_caller]
    pub fn attach(pid: i32) -> Option<Self> {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can take over a handler");
            return None;
        }
        let pid = Pid::from_raw(pid);
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
        let saved = await_some("the process waits in a system call", || stop_in_call(pid, &memory));
        let mut this = Self { pid, memory, saved, scratch: 0, used: 0, not_send: PhantomData };
        let protection = argument(libc::PROT_READ | libc::PROT_WRITE);
        let flags = argument(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let anonymous = [0, SCRATCH as u64, protection, flags, argument(-1), 0];
        this.scratch = this.call(libc::SYS_mmap, &anonymous).expect("memory for arguments");
        Some(this)
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Has the process make a system call.
    #[track_caller]
    pub fn call(&mut self, number: libc::c_long, arguments: &[u64]) -> Result<u64, Errno> {
        let mut six = [0; 6];
        six[..arguments.len()].copy_from_slice(arguments);
        let mut registers = self.saved;
        registers.rip -= SYSCALL.len() as u64;
        registers.rax = number.cast_unsigned();
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = six;
        // The kernel must not restart the call in which the process waited.
        registers.orig_rax = u64::MAX;
        ptrace::setregs(self.pid, registers).unwrap();
        self.step();
        let result = ptrace::getregs(self.pid).unwrap().rax;
        match i32::try_from(result.cast_signed()) {
            Ok(error @ -4095..=-1) => Err(Errno::from_raw(-error)),
            _ => Ok(result),
        }
    }

    /// Executes one instruction. A signal that comes meanwhile is dropped, such as that of a child's end.
    #[track_caller]
    fn step(&self) {
        loop {
            ptrace::step(self.pid, None).unwrap();
            match wait(self.pid) {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => return,
                WaitStatus::Stopped(..) => {}
                ended => panic!("the process did not survive the call: {ended:?}"),
            }
        }
    }

    /// Puts bytes into memory of the process. Returns their address.
    #[track_caller]
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let address = self.scratch + self.used as u64;
        // The next ones are aligned for any type.
        self.used = (self.used + bytes.len()).next_multiple_of(16);
        assert!(self.used <= SCRATCH, "too many bytes");
        self.write(address, bytes).unwrap();
        address
    }

    /// Writes to memory that the process itself can write.
    pub fn write(&self, address: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.memory.write_all_at(bytes, address)
    }

    /// Reads memory of the process.
    #[track_caller]
    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_exact_at(&mut bytes, address).unwrap();
        bytes
    }
}

impl Drop for Hijacked {
    fn drop(&mut self) {
        ptrace::setregs(self.pid, self.saved).ok();
        if ptrace::detach(self.pid, None).is_err() {
            // It was killed. Its parent can only reap it after its tracer.
            waitpid(self.pid, Some(WaitPidFlag::__WALL)).ok();
        }
    }
}

/// A number as an argument of a system call.
pub fn argument(number: impl Into<i128>) -> u64 {
    number.into() as u64
}

/// Stops the process. Returns its registers if it waits in a system call; otherwise lets it go on.
fn stop_in_call(pid: Pid, memory: &File) -> Option<user_regs_struct> {
    ptrace::seize(pid, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(pid).unwrap();
    let stopped = wait(pid);
    assert!(matches!(stopped, WaitStatus::PtraceEvent(..)), "{stopped:?}");
    let registers = ptrace::getregs(pid).unwrap();
    let mut code = [0; SYSCALL.len()];
    memory.read_exact_at(&mut code, registers.rip - SYSCALL.len() as u64).unwrap();
    if WAITS.contains(&registers.orig_rax.cast_signed()) && code == SYSCALL {
        return Some(registers);
    }
    ptrace::detach(pid, None).unwrap();
    None
}

#[track_caller]
fn wait(pid: Pid) -> WaitStatus {
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    let ended = await_within(PATIENCE, || {
        Some(waitpid(pid, Some(flags)).unwrap()).filter(|status| *status != WaitStatus::StillAlive)
    });
    ended.expect("a system call that returns")
}

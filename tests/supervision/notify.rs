//! What a service manager is told, over the socket that `NOTIFY_SOCKET` names.

use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use common::processes::{self, descriptors};
use common::tls::tls_setup;
use common::{PATIENCE, Setup, bets, status, until};
use nix::sys::signal::Signal;

/// The manager's socket.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self(UnixDatagram::bind(path).unwrap())
    }

    /// Waits for the next message.
    #[track_caller]
    fn next(&self) -> String {
        let mut message = [0; 100];
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = self.0.recv(&mut message).expect("a message");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    /// No further message has come, and none will: the server has ended.
    #[track_caller]
    fn has_all(&self) {
        self.0.set_nonblocking(true).unwrap();
        assert_eq!(self.0.recv(&mut [0; 100]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// Fills the queue of the socket at that path. Returns how many messages fit.
fn fill(path: &Path) -> usize {
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    (0..100_000).take_while(|_| sender.send_to(b"WATCHDOG=1", path).is_ok()).count()
}

#[test]
fn ready_means_that_the_port_answers_and_storage_has_its_files() {
    for setup in [Setup::new(), tls_setup(1)] {
        let path = setup.path("notify");
        let manager = Manager::at(&path);
        let mut server = setup.with("NOTIFY_SOCKET", path.display()).spawn();
        assert_eq!(manager.next(), "READY=1");
        let port = server.log().value("listen", "port").expect("the server listens").parse().unwrap();
        assert_eq!(status(port)["bets"], 0);
        assert!(server.setup().bets_path().exists());
        // All that confines the server allows the messages.
        assert_eq!(server.log().value("confinement", "seccomp").as_deref(), Some("full"));
        processes::send(server.storage(), Signal::SIGKILL);
        until("storage is restarted", || server.log().lines_with("action: recovery").len() == 2);
        server.terminate();
        assert_eq!(manager.next(), "STOPPING=1");
        manager.has_all();
    }
}

#[test]
fn a_server_whose_storage_waits_for_its_files_is_not_ready() {
    let setup = Setup::new().write("bets.csv", "");
    let path = setup.path("notify");
    let manager = Manager::at(&path);
    let _lock = setup.lock_bets();
    let mut server = setup.with("NOTIFY_SOCKET", path.display()).spawn();
    server.storage();
    server.terminate();
    assert_eq!(manager.next(), "STOPPING=1");
    manager.has_all();
}

#[test]
fn no_child_has_the_socket_and_it_may_be_an_abstract_one() {
    let name = format!("loteria-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager(UnixDatagram::bind_addr(&address).unwrap());
    let server = Setup::new().with("NOTIFY_SOCKET", format!("@{name}")).start();
    assert_eq!(manager.next(), "READY=1");
    let _session = server.session(1);
    server.wait_for_handlers(1);
    let sockets = |pid: i32| descriptors(pid).values().filter(|target| target.starts_with("socket:")).count();
    // The client, or the link to the acceptor.
    for child in processes::children_of(server.pid()) {
        assert_eq!(sockets(child), 1);
    }
    // The listener, the link to storage, and this.
    assert_eq!(sockets(server.pid()), 3);
}

#[test]
fn a_socket_that_can_not_be_used_is_a_warning() {
    let setup = Setup::new().write("file", "");
    let file = setup.path("file").display().to_string();
    let endless = format!("/{}", "x".repeat(200));
    for name in [&*file, "/missing/notify", "notify", "", "@", "@loteria-nobody", &endless] {
        let server = setup.clone().with("NOTIFY_SOCKET", name).start();
        let log = server.log();
        let warning = format!("WARNING  action: notify | result: fail | socket: {name}");
        assert_eq!(log.0.matches(&warning).count(), 1, "{}", log.0);
    }
}

#[test]
fn a_manager_that_reads_nothing_or_goes_away_disturbs_nobody() {
    let setup = Setup::of(1);
    let path = setup.path("notify");
    let manager = Manager::at(&path);
    let count = fill(&path);
    let mut server = setup.with("NOTIFY_SOCKET", path.display()).start();
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    for _ in 0..count {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    assert_eq!(manager.next(), "READY=1");
    drop(manager);
    client.store(3, &bets(1, 3..6));
    server.terminate();
    fs::remove_file(&path).unwrap();
    let _manager = Manager::at(&path);
    fill(&path);
    server.setup().start().terminate();
}

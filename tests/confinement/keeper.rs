//! What a handler that was taken over asks of the keeper, and what it shows to storage. Messages are written here byte for
//! byte, as `ipc::keeper` and `ipc::messages` describe them.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::client::frame;
use common::hijack::{Hijacked, argument};
use common::processes::{children_of, descriptors, has_in_memory, send, state};
use common::tls::{agency_folder, exchange, tls_setup};
use common::{Client, RunningServer, await_some, bets, kind, rows, until};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How TLS numbers ECDSA with P-256 and SHA-256, the one way in which the key of `loteria certs` signs.
const ECDSA: u16 = 0x0403;
const HASH: &[u8] = &[7; 32];
/// The longest time that an answer takes, in milliseconds.
const PATIENCE: i32 = 5000;

/// A server with certificates, and which of its children are known.
struct Besieged {
    server: RunningServer,
    known: Vec<i32>,
    /// Where the acceptor keeps the token of the last client.
    token: u64,
    /// The key of all vouchers.
    voucher_key: Vec<u8>,
}

impl Besieged {
    /// Agency 3 needs no certificate. None unless this process is root.
    fn start() -> Option<Self> {
        let server = tls_setup(3).with("PLAIN_AGENCIES", "3").start();
        drop(Hijacked::attach(server.pid())?);
        let known = children_of(server.pid());
        let secrets = wiped_pages(server.pid());
        let (keys, tokens): (Vec<_>, Vec<_>) =
            secrets.into_iter().partition(|(_, secret)| secret.iter().any(|byte| *byte != 0));
        // Before the first client, one page has a secret.
        assert_eq!((keys.len(), tokens.len()), (1, 1));
        Some(Self { server, known, token: tokens[0].0, voucher_key: keys[0].1.clone() })
    }

    /// Takes over the handler of a new client that has sent nothing.
    fn take_over(&mut self) -> TakenOver {
        let client = self.server.connect();
        let pid = await_some("a handler", || {
            children_of(self.server.pid()).into_iter().find(|pid| !self.known.contains(pid))
        });
        self.known.push(pid);
        let process = Hijacked::attach(pid).unwrap();
        let token = memory(self.server.pid(), self.token, 16);
        let unix = fs::read_to_string("/proc/net/unix").unwrap();
        let is_unix = |target: &str| {
            let inode = target.strip_prefix("socket:[").and_then(|inode| inode.strip_suffix(']'));
            inode.is_some_and(|inode| unix.split_whitespace().any(|word| word == inode))
        };
        let descriptors = descriptors(pid);
        let find = |is: &dyn Fn(&str) -> bool| {
            argument(*descriptors.iter().find(|(_, target)| is(target)).expect("a descriptor").0)
        };
        TakenOver {
            keeper: find(&is_unix),
            queue: find(&|target| target.starts_with("/loteria-")),
            replies: find(&|target| target.starts_with("pipe:")),
            _client: client,
            process,
            token,
            requests: 0,
        }
    }

    /// The status, asked by agency 1 over TLS.
    #[track_caller]
    fn assert_serves(&self) {
        let folder = agency_folder(&self.server.setup(), 1);
        let answer = exchange(self.server.port(), &folder, &frame(kind::STATUS_REQUEST, b"")).unwrap();
        assert_eq!(answer.first(), Some(&kind::STATUS));
    }
}

/// The pages of a process that a fork wipes: their addresses, and the first bytes of each.
fn wiped_pages(pid: i32) -> Vec<(u64, Vec<u8>)> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut range = 0..0;
    let mut pages = Vec::new();
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap();
        if let Some((from, to)) = first.split_once('-') {
            let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
            range = from..to;
        } else if first == "VmFlags:" && line.contains(" wf") {
            pages.extend(range.clone().step_by(4096).map(|page| (page, memory(pid, page, 16))));
        }
    }
    pages
}

fn memory(pid: i32, address: u64, length: usize) -> Vec<u8> {
    let mut file = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    file.seek(SeekFrom::Start(address)).unwrap();
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).unwrap();
    bytes
}

/// A handler that was taken over before its client has sent anything.
struct TakenOver {
    process: Hijacked,
    _client: Client,
    /// Its descriptors.
    keeper: u64,
    queue: u64,
    replies: u64,
    token: Vec<u8>,
    requests: u32,
}

impl TakenOver {
    /// Waits for what a descriptor receives. None at its end.
    fn receive(&mut self, descriptor: u64) -> Option<Vec<u8>> {
        // The descriptor, and POLLIN.
        let poll = self.process.put(&(descriptor | 1 << 32).to_le_bytes());
        let ready = self.process.call(libc::SYS_poll, &[poll, 1, argument(PATIENCE)]).unwrap();
        assert_eq!(ready, 1, "an answer or the end");
        let buffer = self.process.put(&[0; 512]);
        let read = self.process.call(libc::SYS_read, &[descriptor, buffer, 512]);
        let length = if read == Err(Errno::ECONNRESET) { 0 } else { read.unwrap() };
        (length > 0).then(|| self.process.read(buffer, usize::try_from(length).unwrap()))
    }

    /// Sends bytes to the keeper, unless its socket is full or closed.
    fn send_to_keeper(&mut self, address: u64, length: usize) -> Result<u64, Errno> {
        let flags = argument(libc::MSG_NOSIGNAL);
        self.process.call(libc::SYS_sendto, &[self.keeper, address, length as u64, flags, 0, 0])
    }

    /// Asks the keeper. None if it closes the socket instead of an answer.
    fn ask_keeper(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let address = self.process.put(message);
        self.send_to_keeper(address, message.len()).ok()?;
        self.receive(self.keeper)
    }

    /// Gets a voucher from the keeper by the key of a folder, as for a client that signs its handshake with it.
    fn voucher(&mut self, folder: &Path) -> Vec<u8> {
        assert!(self.ask_keeper(&sign(ECDSA, &[HASH])).is_some());
        let proven = self.ask_keeper(&proof(folder)).unwrap();
        assert_eq!(proven[..4], [1, 0, 0, 0], "proven");
        let is_operator = proven[4] == 1;
        proven[if is_operator { 8 } else { 10 }..][..32].to_vec()
    }

    /// Sends a request to storage. Returns the kind of its reply; none if storage drops the client.
    fn ask_storage(&mut self, request: &[u8]) -> Option<u8> {
        self.send_to_storage(request);
        // Two bytes for the length and four for the number are before it.
        self.receive(self.replies).map(|reply| reply[6])
    }

    fn send_to_storage(&mut self, request: &[u8]) {
        self.requests += 1;
        let message = [&self.token, &self.requests.to_le_bytes()[..], &[1], request].concat();
        let address = self.process.put(&message);
        let arguments = [self.queue, address, message.len() as u64, 0, 0];
        self.process.call(libc::SYS_mq_timedsend, &arguments).unwrap();
    }
}

fn message(kind: u32, scheme: u16, fields: &[&[u8]]) -> Vec<u8> {
    let head = [&kind.to_le_bytes()[..], &scheme.to_le_bytes()].concat();
    let fields = fields.iter().map(|field| {
        let length = u16::try_from(field.len()).unwrap();
        [&length.to_le_bytes(), *field].concat()
    });
    [head].into_iter().chain(fields).flatten().collect()
}

fn sign(scheme: u16, fields: &[&[u8]]) -> Vec<u8> {
    message(0, scheme, fields)
}

/// The question who a client is that has signed a handshake with the key of a folder.
fn proof(folder: &Path) -> Vec<u8> {
    let key = PrivateKeyDer::from_pem_slice(&fs::read(folder.join("tls.key")).unwrap()).unwrap();
    let random = ring::rand::SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_der(), &random).unwrap();
    let signed = [&[b' '; 64], &b"TLS 1.3, client CertificateVerify\0"[..], HASH].concat();
    let signature = key.sign(&random, &signed).unwrap();
    message(1, ECDSA, &[HASH, signature.as_ref(), &certificate(folder)])
}

fn certificate(folder: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(&fs::read(folder.join("tls.crt")).unwrap()).unwrap()
}

#[test]
fn a_handler_gets_one_signature_and_one_verdict_whatever_it_asks() {
    let Some(mut besieged) = Besieged::start() else { return };
    let keeper = besieged.server.keeper();
    let before = descriptors(keeper).len();
    let whole = [&[b' '; 64], &b"TLS 1.3, server CertificateVerify\0"[..], HASH].concat();
    let own = proof(&agency_folder(&besieged.server.setup(), 1));
    let good = sign(ECDSA, &[HASH]);
    // What it sends, and how often it gets an answer.
    let mut attacks: Vec<(Vec<&[u8]>, usize)> =
        vec![(vec![&good, &good], 1), (vec![&own, &good], 0), (vec![&good, &own, &own], 2)];
    let junk = message(1, ECDSA, &[HASH, &[1; 70], &[0x30; 500]]);
    attacks.push((vec![&good, &junk, &good], 2));
    // No hash of a handshake; other ways to sign than the key has; messages of the acceptor; nothing and rubbish.
    let mut wrong: Vec<Vec<u8>> =
        [0, 1, 31, 33, 47, 49, 64].into_iter().map(|length| sign(ECDSA, &[&vec![1; length]])).collect();
    wrong.extend([sign(ECDSA, &[&whole]), sign(ECDSA, &[]), sign(ECDSA, &[HASH, HASH])]);
    wrong.extend([0, 0x0203, 0x0401, 0x0503, 0x0804, 0x0807, 0xffff].map(|scheme| sign(scheme, &[HASH])));
    wrong.extend([[&[0; 4][..], &[9; 16]].concat(), [&[1, 0, 0, 0][..], &[1; 8]].concat()]);
    wrong.extend((0..good.len()).step_by(5).map(|length| good[..length].to_vec()));
    wrong.extend([1, 4, 6, 7, 100, 1000, 10_000].map(|length| vec![0xff; length]));
    attacks.extend(wrong.iter().map(|message| (vec![&message[..], &good], 0)));
    for (messages, expected) in attacks {
        let mut handler = besieged.take_over();
        let answers = messages.iter().take_while(|message| handler.ask_keeper(message).is_some()).count();
        assert_eq!(answers, expected, "{messages:?}");
    }
    // The certificate of a client, and what somebody else has signed.
    let mut handler = besieged.take_over();
    handler.ask_keeper(&good).unwrap();
    let certificate = certificate(&agency_folder(&besieged.server.setup(), 1));
    let rejected = handler.ask_keeper(&message(1, ECDSA, &[HASH, &[1; 70], &certificate])).unwrap();
    assert_eq!(rejected, [2, 0, 0, 0, 5, 0, 0, 0], "rejected for its signature");
    // Longer than any message.
    for length in [65_536, 73_729, 150_000] {
        let mut handler = besieged.take_over();
        let anonymous = argument(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let arguments = [0, length as u64, argument(libc::PROT_READ), anonymous, u64::MAX, 0];
        let zeros = handler.process.call(libc::SYS_mmap, &arguments).unwrap();
        handler.send_to_keeper(zeros, length).unwrap();
        assert_eq!(handler.receive(handler.keeper), None);
    }
    besieged.assert_serves();
    assert_eq!(besieged.server.keeper(), keeper);
    until("all sockets are closed", || descriptors(keeper).len() == before);
}

#[test]
fn a_handler_that_floods_the_keeper_or_holds_its_socket_harms_nobody() {
    let Some(mut besieged) = Besieged::start() else { return };
    let keeper = besieged.server.keeper();
    let mut holder = besieged.take_over();
    let mut flooder = besieged.take_over();
    let before = descriptors(keeper).len();
    let good = sign(ECDSA, &[HASH]);
    send(keeper, Signal::SIGSTOP);
    // With copies of the queue's descriptor: see `cmsghdr` and `msghdr` in `cmsg(3)` and `recvmsg(2)`.
    let numbers = |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_le_bytes()).collect() };
    let address = flooder.process.put(&good);
    let bytes = flooder.process.put(&numbers(&[address, good.len() as u64]));
    let rights = (argument(libc::SCM_RIGHTS) << 32) + argument(libc::SOL_SOCKET);
    let two = (flooder.queue << 32) + flooder.queue;
    let rights = flooder.process.put(&numbers(&[32, rights, two, two]));
    let header = flooder.process.put(&numbers(&[0, 0, bytes, 1, rights, 32, 0]));
    flooder.process.call(libc::SYS_sendmsg, &[flooder.keeper, header, 0]).unwrap();
    let sent = (0..10_000).take_while(|_| flooder.send_to_keeper(address, good.len()).is_ok()).count();
    assert!((1..10_000).contains(&sent), "{sent}");
    send(keeper, Signal::SIGCONT);
    besieged.assert_serves();
    let answers = std::iter::from_fn(|| flooder.receive(flooder.keeper)).count();
    assert!(answers <= 1, "{answers}");
    until("what it has sent is closed", || descriptors(keeper).len() == before - 1);
    // A keeper that was replaced waits for the one that holds its socket, and nobody waits for that keeper.
    besieged.server.signal(Signal::SIGHUP);
    until("another keeper serves", || {
        besieged.server.log().lines_with("action: tls | result: success").len() == 2
    });
    besieged.assert_serves();
    assert!(state(keeper).is_some());
    assert!(holder.ask_keeper(&good).is_some());
    let pid = holder.process.pid();
    send(pid, Signal::SIGSTOP);
    drop((holder, flooder));
    until("it is stopped", || state(pid) == Some('T'));
    let (status, took) = besieged.server.stop(Signal::SIGTERM);
    assert!(status.success() && took < Duration::from_secs(1), "{status} after {took:?}");
}

/// The kinds of requests, see `Request`; and of replies, see `Reply`.
const PROVE: u32 = 0;
const OPEN_SESSION: u32 = 1;
const STORE_BETS: u32 = 2;
const END_AGENCY: u32 = 3;
const RESULT: u32 = 4;
const AWAIT_RESULT: u32 = 5;
const STATUS: u32 = 6;
const PROVEN: u8 = 0;
const OPENED: u8 = 1;
const STORED: u8 = 2;
const NOT_DRAWN: u8 = 5;
const STATUS_PAGE: u8 = 7;
const REFUSED: u8 = 8;

fn request(kind: u32, fields: &[u8], bulk: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], fields, &[1], bulk].concat()
}

fn of_agency(kind: u32, agency: u16) -> Vec<u8> {
    let offset = if kind == RESULT { &[0; 8][..] } else { &[] };
    request(kind, &[&agency.to_le_bytes()[..], offset].concat(), b"")
}

/// Bets of these agencies; in a session, those from index 0 on.
fn store(agencies: &[u32], in_session: bool) -> Vec<u8> {
    let bulk: Vec<u8> = agencies.iter().flat_map(|agency| rows(&bets(*agency, 0..1))).collect();
    request(STORE_BETS, if in_session { &[1, 0, 0, 0, 0, 0, 0, 0, 0] } else { &[0] }, &bulk)
}

/// Shows a voucher for an agency, or for the operator.
fn prove(agency: Option<u16>, voucher: &[u8]) -> Vec<u8> {
    let peer =
        agency.map_or_else(|| vec![1, 0, 0, 0], |agency| [&[0; 4][..], &agency.to_le_bytes()].concat());
    request(PROVE, &[&peer, voucher].concat(), b"")
}

/// What a handler claims that its client is, and the voucher that it shows, made of one for agency 1.
type Forgery<'a> = (Option<u16>, &'a dyn Fn(Vec<u8>) -> Vec<u8>);

#[test]
fn storage_believes_no_voucher_but_that_of_the_same_client_and_peer_and_once() {
    let Some(mut besieged) = Besieged::start() else { return };
    let folder = agency_folder(&besieged.server.setup(), 1);
    let foreign = besieged.take_over().voucher(&folder);
    let changed = |mut own: Vec<u8>| {
        own[31] ^= 1;
        own
    };
    let forgeries: [Forgery<'_>; 6] = [
        (Some(1), &|_| vec![0; 32]),
        (Some(1), &changed),
        (Some(1), &|_| foreign.clone()),
        (Some(2), &|own| own),
        (Some(3), &|own| own),
        (None, &|own| own),
    ];
    for (claimed, forge) in forgeries {
        let mut handler = besieged.take_over();
        let own = handler.voucher(&folder);
        assert_eq!(handler.ask_storage(&prove(claimed, &forge(own))), None, "{claimed:?}");
    }
    let mut handler = besieged.take_over();
    let voucher = handler.voucher(&folder);
    assert_eq!(handler.ask_storage(&prove(Some(1), &voucher)), Some(PROVEN));
    assert_eq!(handler.ask_storage(&prove(Some(1), &voucher)), None, "a second time");
}

/// What a handler proves, its requests, and the kind of the last reply; none if storage drops the client.
type Attack<'a> = (Option<&'a PathBuf>, Vec<Vec<u8>>, Option<u8>);

/// The requests of each row of the table of rights. Who has proven nothing may act for agency 3, and have the status, as on
/// this machine.
fn attacks<'a>(agency: &'a PathBuf, operator: &'a PathBuf) -> Vec<Attack<'a>> {
    let mut attacks: Vec<Attack<'_>> = Vec::new();
    for kind in [OPEN_SESSION, END_AGENCY, RESULT, AWAIT_RESULT] {
        attacks.extend([1, 2].map(|other| (None, vec![of_agency(kind, other)], None)));
        attacks.extend([2, 3].map(|other| (Some(agency), vec![of_agency(kind, other)], None)));
        attacks.push((Some(operator), vec![of_agency(kind, 3)], None));
    }
    let [own, plain] = [1, 3].map(|agency| of_agency(OPEN_SESSION, agency));
    attacks.extend([
        (None, vec![store(&[1], false)], None),
        (None, vec![store(&[3, 1], false)], None),
        (None, vec![store(&[1], true)], Some(REFUSED)),
        (None, vec![plain.clone(), store(&[1], true)], Some(REFUSED)),
        (None, vec![plain.clone(), plain.clone()], Some(REFUSED)),
        (None, vec![plain.clone(), store(&[3], false)], Some(REFUSED)),
        (None, vec![plain, of_agency(END_AGENCY, 1)], None),
        (Some(agency), vec![store(&[2], false)], None),
        (Some(agency), vec![store(&[1, 2], false)], None),
        (Some(agency), vec![own.clone(), store(&[2], true)], Some(REFUSED)),
        (Some(agency), vec![own.clone(), of_agency(END_AGENCY, 2)], None),
        (Some(operator), vec![store(&[1], false)], None),
        // What each may.
        (Some(operator), vec![request(STATUS, &[0, 0], b"")], Some(STATUS_PAGE)),
        (Some(agency), vec![own, of_agency(RESULT, 1)], Some(NOT_DRAWN)),
        (Some(agency), vec![store(&[1], false)], Some(STORED)),
        // Without a session, only one change.
        (None, vec![store(&[3], false), store(&[3], false)], Some(REFUSED)),
    ]);
    attacks
}

#[test]
fn storage_drops_a_client_that_asks_for_more_than_it_has_proven() {
    let Some(mut besieged) = Besieged::start() else { return };
    let folder = besieged.server.setup().path("certs");
    let [agency, operator] = ["agency-1", "operator"].map(|name| folder.join(name));
    for (proven, requests, expected) in attacks(&agency, &operator) {
        let mut handler = besieged.take_over();
        if let Some(folder) = proven {
            let voucher = handler.voucher(folder);
            let claimed = (*folder == agency).then_some(1);
            assert_eq!(handler.ask_storage(&prove(claimed, &voucher)), Some(PROVEN));
        }
        let (last, others) = requests.split_last().unwrap();
        for request in others {
            assert!(matches!(handler.ask_storage(request), Some(OPENED | STORED)));
        }
        assert_eq!(handler.ask_storage(last), expected, "{proven:?} {requests:?}");
    }
    let server = &besieged.server;
    assert_eq!(server.bets_file(), [rows(&bets(1, 0..1)), rows(&bets(3, 0..1))].concat());
    assert_eq!(common::status(server.port())["ended"], 0);
}

#[test]
fn storage_takes_nothing_for_a_client_whose_handler_has_ended() {
    let Some(mut besieged) = Besieged::start() else { return };
    let gone = besieged.take_over();
    let (pid, token) = (gone.process.pid(), gone.token.clone());
    drop(gone);
    until("it is reaped", || state(pid).is_none());
    let mut handler = besieged.take_over();
    // This client was announced after the end of the other.
    assert_eq!(handler.ask_storage(&request(STATUS, &[0, 0], b"")), Some(STATUS_PAGE));
    let own = std::mem::replace(&mut handler.token, token);
    handler.send_to_storage(&store(&[3], false));
    handler.token = own;
    assert_eq!(handler.ask_storage(&of_agency(OPEN_SESSION, 3)), Some(OPENED));
    assert_eq!(besieged.server.bets_file(), b"");
}

#[test]
fn no_handler_has_the_key_of_all_vouchers() {
    let Some(mut besieged) = Besieged::start() else { return };
    let silent = besieged.take_over();
    let mut proven = besieged.take_over();
    proven.voucher(&agency_folder(&besieged.server.setup(), 1));
    let [silent, proven] = [&silent, &proven].map(|handler| handler.process.pid());
    for (pid, expected) in [(besieged.server.pid(), true), (silent, false), (proven, false)] {
        assert_eq!(has_in_memory(pid, &besieged.voucher_key), expected, "process {pid}");
    }
}

#[test]
fn the_keeper_keeps_only_what_it_needs() {
    let server = tls_setup(1).start();
    let Some(mut keeper) = Hijacked::attach(server.keeper()) else { return };
    let acceptor = argument(server.pid());
    let key = server.setup().path("certs/server/tls.key");
    let key = keeper.put(format!("{}\0", key.display()).as_bytes());
    let (here, any) = (argument(libc::AT_FDCWD), key);
    for (call, arguments) in [
        (libc::SYS_openat, &[here, key, 0, 0][..]),
        (libc::SYS_kill, &[acceptor, argument(libc::SIGWINCH)]),
        (libc::SYS_clone, &[argument(libc::SIGCHLD), 0, 0, 0, 0]),
        (libc::SYS_socket, &[argument(libc::AF_INET), argument(libc::SOCK_STREAM), 0]),
        (libc::SYS_execve, &[any, 0, 0]),
        (libc::SYS_ptrace, &[argument(libc::PTRACE_SEIZE), acceptor, 0, 0]),
        (libc::SYS_process_vm_readv, &[acceptor, any, 1, any, 1, 0]),
        (libc::SYS_prlimit64, &[acceptor, 0, any, 0]),
    ] {
        let result = keeper.call(call, arguments);
        assert!(matches!(result, Err(Errno::EPERM | Errno::EACCES | Errno::EAGAIN)), "{call}: {result:?}");
    }
}

//! What a handler has open.

use common::Setup;
use common::processes::descriptors;

#[test]
fn a_handler_has_only_the_descriptors_that_it_needs() {
    let server = Setup::new().start();
    let (_client, _) = server.session(1);
    let handler = server.handlers()[0];
    let mut kinds: Vec<String> = descriptors(handler)
        .into_iter()
        .filter(|(number, _)| *number != 2)
        .map(|(_, link)| link.split(':').next().unwrap().to_owned())
        .collect();
    kinds.sort_unstable();
    // Besides standard error: the queue, epoll, the signalfd, the reply pipe and the client.
    assert_eq!(kinds.len(), 5, "{kinds:?}");
    assert!(kinds.iter().any(|kind| kind.starts_with("/loteria-")), "{kinds:?}");
    kinds.retain(|kind| !kind.starts_with("/loteria-"));
    assert_eq!(kinds, ["anon_inode", "anon_inode", "pipe", "socket"]);
}

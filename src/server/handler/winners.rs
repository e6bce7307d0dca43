//! Results: what a client is told that asks who won, before the draw and after it.
//!
//! A result can be far longer than a pipe holds, so it comes in pages. The next page is asked for when the client has taken
//! what came before: the memory that a slow reader costs does not grow with its result.

use std::io;

use super::connection::Connection;
use super::dialog::{Dialog, Later, Mode, Question, refusal};
use super::log_lines::{log_result, log_result_in_progress, log_result_refused};
use crate::ipc::finished_agencies::Finished;
use crate::ipc::reply_pipe::Reply;
use crate::ipc::request_queue::Request;
use crate::logging::Level;
use crate::lottery::AgencyId;
use crate::protocol::frame::{FrameType, header};
use crate::protocol::message::ServerMessage;

/// How far a request for a result is with the storage service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It answers at once.
    Asked {
        /// Whether the client waits for the draw, if it has not been made.
        wait: bool,
    },
    /// It answers when the draw has been made.
    Awaited,
    /// It sends the page that begins there, in bytes.
    Paging {
        /// Where.
        offset: u64,
    },
}

impl Stage {
    /// Where the page begins that the storage service sends, in bytes.
    fn offset(self) -> u64 {
        if let Self::Paging { offset } = self { offset } else { 0 }
    }
}

/// Asks for the winners of an agency; before the draw a client that does not wait for it is told at once.
///
/// # Errors
/// The storage service can't be asked.
pub fn ask(
    dialog: &mut Dialog<'_>,
    agency: AgencyId,
    wait: bool,
    connection: &mut Connection<'_>,
) -> io::Result<()> {
    // Without the array's word that it is too early the storage service is asked at once: who half-closes after the draw
    // is still answered, who does so before it is not.
    match dialog.view.finished.all_finished(dialog.view.agencies) {
        Finished::No if wait => ask_storage(dialog, agency, Stage::Awaited),
        Finished::No => {
            say_in_progress(dialog, agency, connection);
            Ok(())
        }
        Finished::Yes | Finished::Perhaps => ask_storage(dialog, agency, Stage::Asked { wait }),
    }
}

/// Asks for the next page of the winners of an agency.
///
/// # Errors
/// The storage service can't be asked.
pub fn ask_page(dialog: &mut Dialog<'_>, agency: AgencyId, offset: u64) -> io::Result<()> {
    ask_storage(dialog, agency, Stage::Paging { offset })
}

fn ask_storage(dialog: &mut Dialog<'_>, agency: AgencyId, stage: Stage) -> io::Result<()> {
    let request = match stage {
        Stage::Awaited => Request::AwaitResult { agency },
        Stage::Asked { .. } | Stage::Paging { .. } => Request::Result { agency, offset: stage.offset() },
    };
    dialog.ask(request, Question::Winners(agency, stage))
}

/// Sends what the storage service says.
///
/// # Errors
/// The storage service can't be asked for what it has not said.
pub fn answer(
    dialog: &mut Dialog<'_>,
    agency: AgencyId,
    stage: Stage,
    reply: &Reply,
    bulk: &[u8],
    connection: &mut Connection<'_>,
) -> io::Result<()> {
    match (reply, stage) {
        (Reply::ResultPage { total }, _) => {
            send_page(dialog, agency, stage.offset(), *total, bulk, connection);
        }
        (Reply::NotDrawn, Stage::Asked { wait: false }) => {
            say_in_progress(dialog, agency, connection);
        }
        (Reply::NotDrawn, _) if connection.is_half_closed() => {
            dialog.end("closed by the client while it awaited the draw");
        }
        (Reply::NotDrawn, _) => return ask_storage(dialog, agency, Stage::Awaited),
        (other, _) => {
            let error = refusal(other).unwrap_or_default();
            log_result_refused(agency.get().into(), &error);
            connection.send(&ServerMessage::Error(&error));
        }
    }
    Ok(())
}

fn send_page(
    dialog: &mut Dialog<'_>,
    agency: AgencyId,
    offset: u64,
    total: u64,
    page: &[u8],
    connection: &mut Connection<'_>,
) {
    if offset == 0 {
        let Ok(length) = u32::try_from(total) else {
            return dialog.refuse_and_end("the result is too long for a message");
        };
        log_result(agency);
        connection.send_with(|output| output.extend_from_slice(&header(FrameType::Result, length)));
    }
    connection.send_with(|output| output.extend_from_slice(page));
    let offset = offset + page.len() as u64;
    if offset < total && !page.is_empty() {
        dialog.ask_later(Later::Page { agency, offset });
    }
}

/// A session may ask as often as it likes; a classic client connects for it, which is told anyway.
fn say_in_progress(dialog: &Dialog<'_>, agency: AgencyId, connection: &mut Connection<'_>) {
    let level = if matches!(dialog.mode, Mode::Session(_)) { Level::Debug } else { Level::Info };
    log_result_in_progress(level, agency);
    connection.send(&ServerMessage::InProgress);
}

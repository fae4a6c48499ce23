//! An answer as it goes out, frame by frame.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::frames::{self, Frame};
use super::server::State;
use super::{Ending, Script, UsageForm, Wire};

const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// Sends the frames; notes if nobody wants them any more.
pub async fn play(
    script: Script,
    wire: Wire,
    state: Arc<Mutex<State>>,
    number: usize,
    sender: mpsc::Sender<io::Result<Bytes>>,
    reset: Arc<AtomicBool>,
) {
    let outcome = tokio::select! {
        outcome = frames_of(&script, wire, &sender, &reset, &state, number) => outcome,
        () = sender.closed() => Err(()),
    };
    if outcome.is_err() {
        state.lock().unwrap().abandoned += 1;
    }
}

async fn frames_of(
    script: &Script,
    wire: Wire,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    reset: &AtomicBool,
    state: &Mutex<State>,
    number: usize,
) -> Result<(), ()> {
    tokio::time::sleep(script.first).await;
    let mut frames: Vec<Frame> = frames::of(script, wire);
    if script.ending != Ending::Proper {
        match script.ends_after {
            // Without the mark of the end: [DONE], message_stop, the final event.
            None => drop(frames.pop()),
            Some(pieces) => {
                let mut left = pieces;
                frames.retain(|frame| {
                    let keep = left > 0;
                    left -= usize::from(keep && frame.piece);
                    keep
                });
            }
        }
    }
    let mut pieces: u32 = 0;
    for frame in &frames {
        if frame.piece {
            // A burst waits for all its pieces. A timer's least is a millisecond, even for nothing.
            let burst = script.bursts.and_then(|pieces| u32::try_from(pieces).ok()).unwrap_or(1);
            if !script.pace.is_zero() && pieces.is_multiple_of(burst) {
                tokio::time::sleep(script.pace * burst).await;
            }
            pieces += 1;
            state.lock().unwrap().charged.output += 1;
        }
        if script.comments {
            // Anthropic's pings may stand anywhere, too.
            send(if wire == Wire::Anthropic { PING } else { ": OPENROUTER PROCESSING\n\n" }, script, sender)
                .await?;
        }
        send(&frame.text, script, sender).await?;
    }
    // Where only the mark of the end is missing, usage went out before it, unless it is the mark.
    let whole = script.ending == Ending::Proper || (script.ends_after.is_none() && wire != Wire::Responses);
    if whole && script.usage_form != UsageForm::Never {
        state.lock().unwrap().answered[number].told = Some((script.usage.0, script.usage.2));
    }
    let pieces = frames.iter().filter(|frame| frame.piece).count() as u64;
    match &script.ending {
        Ending::Proper => {
            let mut state = state.lock().unwrap();
            state.charged.output = state.charged.output - pieces + script.usage.2;
        }
        Ending::Eof => {}
        Ending::Reset => {
            // What was sent must have arrived first: a reset takes away what the other side has not read.
            tokio::time::sleep(Duration::from_millis(30)).await;
            reset.store(true, Ordering::Release);
            drop(sender.send(Err(io::Error::other("reset on purpose"))).await);
        }
        Ending::Stall => std::future::pending().await,
        Ending::Pings => loop {
            let ping = if wire == Wire::Anthropic { PING } else { ": ping\n\n" };
            send(ping, script, sender).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        },
        Ending::Error(error) => {
            let name = if wire == Wire::Anthropic || wire == Wire::Responses { "event: error\n" } else { "" };
            send(&format!("{name}data: {error}\n\n"), script, sender).await?;
        }
        Ending::Garbage => send("data: {\"choices\": [nonsense\n\n", script, sender).await?,
    }
    Ok(())
}

async fn send(text: &str, script: &Script, sender: &mpsc::Sender<io::Result<Bytes>>) -> Result<(), ()> {
    let text = if script.crlf { text.replace('\n', "\r\n") } else { text.to_owned() };
    for bytes in text.as_bytes().chunks(script.drip.unwrap_or(usize::MAX)) {
        sender.send(Ok(Bytes::copy_from_slice(bytes))).await.map_err(|_| ())?;
        if script.drip.is_some() {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::openresponses::{CreateResponse, ResponseStatus};

fn assembler(id: Uuid) -> Assembler {
    Assembler::new(Response::begun(&CreateResponse::default(), "resp_1".into(), "demo".into(), 1), id, false)
}

fn end() -> End {
    End {
        status: ResponseStatus::Completed,
        incomplete_reason: None,
        error: None,
        usage: None,
        service_tier: None,
        completed_at: Some(2),
    }
}

fn ended(id: Uuid) -> Response {
    assembler(id).finish(&end(), &mut crate::conversation::assembler::NoSink).0
}

fn text(text: &str) -> Chunk {
    Chunk::Text(text.into())
}

#[test]
fn only_what_is_shown_is_seen() {
    let (live, id) = (Arc::new(Live::default()), Uuid::now_v7());
    let mut viewer = Viewer::new(Arc::clone(&live), assembler(id), Encoded::Sse, None);
    let mut out = Vec::new();
    live.keep([text("durable"), text("not yet")]);
    live.show(1);
    assert_eq!(viewer.poll(&mut out), Seen::More);
    let seen = String::from_utf8(out.clone()).unwrap();
    assert!(seen.contains("durable") && !seen.contains("not yet"), "{seen}");
    live.end(end(), ended(id));
    assert!(matches!(viewer.poll(&mut out), Seen::End(_)));
    assert!(String::from_utf8(out.clone()).unwrap().contains("not yet"));
}

#[test]
fn a_stream_cut_anywhere_resumes_without_gap_or_double() {
    let (live, id) = (Arc::new(Live::default()), Uuid::now_v7());
    live.keep_and_show(["a", "b", "c", "d"].map(text));
    live.end(end(), ended(id));
    let watch = |after| {
        let mut viewer = Viewer::new(Arc::clone(&live), assembler(id), Encoded::Json, after);
        let mut out = Vec::new();
        assert!(matches!(viewer.poll(&mut out), Seen::End(_)));
        String::from_utf8(out.clone()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let whole = watch(None);
    for cut in 0..whole.len() {
        let resumed = watch(Some(u64::try_from(cut).unwrap()));
        assert_eq!(resumed, whole[cut + 1..]);
    }
}

#[test]
fn pieces_are_seen_once_and_only_when_shown() {
    let (live, id) = (Arc::new(Live::default()), Uuid::now_v7());
    let mut pieces = Pieces::new(Arc::clone(&live));
    assert_eq!(live.viewers(), 1);
    let mut seen = Vec::new();
    let mut poll = |seen: &mut Vec<Chunk>| pieces.poll(|chunk| seen.push(chunk.clone()));
    live.keep([text("a"), text("b")]);
    live.show(1);
    assert_eq!(poll(&mut seen), Seen::More);
    assert_eq!(seen, [text("a")]);
    live.end(end(), ended(id));
    assert!(matches!(poll(&mut seen), Seen::End(_)));
    assert_eq!(seen, [text("a"), text("b")]);
    drop(pieces);
    assert_eq!(live.viewers(), 0);
}

#[test]
fn much_is_seen_piece_by_piece() {
    let (live, id) = (Arc::new(Live::default()), Uuid::now_v7());
    live.keep_and_show((0..1_000).map(|_| text("word ")));
    live.end(end(), ended(id));
    let mut viewer = Viewer::new(Arc::clone(&live), assembler(id), Encoded::Sse, None);
    let mut pieces = Pieces::new(live);
    let (mut sizes, mut counts) = (Vec::new(), Vec::new());
    loop {
        let mut out = Vec::new();
        let seen = viewer.poll(&mut out);
        sizes.push(out.len());
        if seen != Seen::More {
            break;
        }
        // Nobody waits for what is there.
        at_once(viewer.changed());
    }
    loop {
        let mut count = 0;
        let seen = pieces.poll(|_| count += 1);
        counts.push(count);
        if seen != Seen::More {
            break;
        }
        at_once(pieces.changed());
    }
    assert_eq!(counts, [256, 256, 256, 232]);
    // The last has the whole text four times besides.
    let (last, others) = sizes.split_last().expect("some");
    assert!(sizes.len() == 4 && others.iter().all(|size| *size < 64 * 1024), "{sizes:?}");
    assert!(*last < 96 * 1024, "{last}");
}

fn at_once(future: impl Future<Output = ()>) {
    use futures_util::FutureExt;
    future.now_or_never().expect("ready at once");
}

#[test]
fn what_was_taken_back_is_shown_to_nobody_who_comes_later() {
    let (live, id) = (Arc::new(Live::default()), Uuid::now_v7());
    let mut early = Viewer::new(Arc::clone(&live), assembler(id), Encoded::Sse, None);
    live.keep_and_show(["good ", "bad"].map(text));
    let mut out = Vec::new();
    assert_eq!(early.poll(&mut out), Seen::More);
    assert!(String::from_utf8(out.clone()).unwrap().contains("bad") && !live.is_retracted());
    live.keep_and_show([Chunk::Retract { keep: 5 }]);
    assert!(live.is_retracted());
    let mut late = Viewer::new(Arc::clone(&live), assembler(id), Encoded::Sse, None);
    let (mut early_sees, mut late_sees) = (Vec::new(), Vec::new());
    early.poll(&mut early_sees);
    late.poll(&mut late_sees);
    let (early_sees, late_sees) =
        (String::from_utf8(early_sees.to_vec()).unwrap(), String::from_utf8(late_sees.to_vec()).unwrap());
    assert!(early_sees.contains("colloquy:output_text_retracted"), "{early_sees}");
    assert!(late_sees.ends_with(&early_sees) && !late_sees.contains("bad"), "{late_sees}");
    assert_eq!(live.chunks()[1], text(""));
}

#[tokio::test]
async fn viewers_are_counted_and_woken() {
    let (live, id) = (Arc::new(Live::default()), Uuid::now_v7());
    let mut viewer = Viewer::new(Arc::clone(&live), assembler(id), Encoded::Sse, None);
    let other = Viewer::new(Arc::clone(&live), assembler(id), Encoded::Sse, None);
    assert_eq!(live.viewers(), 2);
    drop(other);
    assert_eq!(live.viewers(), 1);
    let mut out = Vec::new();
    viewer.poll(&mut out);
    let waiting = tokio::spawn(async move {
        viewer.changed().await;
        let mut out = Vec::new();
        viewer.poll(&mut out)
    });
    live.cut(Cut::Draining);
    assert_eq!(waiting.await.unwrap(), Seen::Cut(Cut::Draining));
}

#[test]
fn of_what_is_deleted_nothing_more_is_shown_but_an_error() {
    let (live, id) = (Arc::new(Live::default()), Uuid::now_v7());
    let watch = |encoded, after| Viewer::new(Arc::clone(&live), assembler(id), encoded, after);
    let mut viewers = [watch(Encoded::Sse, None), watch(Encoded::Sse, Some(40)), watch(Encoded::Json, None)];
    viewers[0].poll(&mut Vec::new());
    live.keep_and_show([text("gone")]);
    live.cut(Cut::Deleted);
    live.end(end(), ended(id));
    let shown = viewers.each_mut().map(|viewer| {
        let mut out = Vec::new();
        assert_eq!(viewer.poll(&mut out), Seen::Cut(Cut::Deleted));
        String::from_utf8(out).unwrap()
    });
    for (shown, number) in shown.iter().zip([2, 41]) {
        let start = format!("event: error\ndata: {{\"type\":\"error\",\"sequence_number\":{number},");
        assert!(shown.starts_with(&start) && shown.contains("'resp_1' not found"), "{shown}");
        assert_eq!(shown.matches("event: ").count(), 1, "{shown}");
    }
    assert_eq!(shown[2], "", "over a WebSocket it has another form");
}

#[test]
fn that_it_goes_on_unlogged_is_told_once_in_either_form() {
    let (live, id) = (Arc::new(Live::default()), Uuid::now_v7());
    for encoded in [Encoded::Sse, Encoded::Json] {
        let mut viewer = Viewer::new(Arc::clone(&live), assembler(id), encoded, None);
        live.set_unlogged();
        let mut out = Vec::new();
        viewer.poll(&mut out);
        assert_eq!(String::from_utf8(out).unwrap().starts_with(": unlogged\n\n"), encoded == Encoded::Sse);
        assert_eq!(viewer.goes_on_unlogged(), encoded == Encoded::Json);
        live.keep_and_show([text("more")]);
        viewer.poll(&mut Vec::new());
        assert!(!viewer.goes_on_unlogged());
    }
}

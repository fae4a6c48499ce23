//! A TCP proxy that makes a network: slow, cut, or silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What the network does to what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Passes everything on, after the delay.
    Open,
    /// Refuses new connections and resets those there are.
    Cut,
    /// Takes everything and passes nothing on: what a lost route looks like.
    Silent,
}

/// A port in front of another port. Dropping it cuts what passes through.
pub struct Proxy {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    passed: Arc<AtomicU64>,
    delay: Delay,
}

/// In microseconds; it may change while connections are open.
type Delay = Arc<AtomicU64>;

impl Proxy {
    /// A proxy to `127.0.0.1:port` that holds every chunk back by `delay`, in each direction. A local database answers
    /// in 0.1 ms and flatters; 3 ms a round trip is what a real one takes.
    pub async fn to(port: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let (mood, changes) = watch::channel(Mood::Open);
        let passed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&passed);
        let held = Arc::new(AtomicU64::new(micros(delay)));
        let delay = Arc::clone(&held);
        tokio::spawn(async move {
            let mut until = changes.clone();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { return };
                        if *changes.borrow() == Mood::Cut {
                            continue;
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                        tokio::spawn(pass(client, port, Arc::clone(&delay), changes.clone()));
                    }
                    changed = until.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { address, mood, passed, delay: held }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections let through so far.
    pub fn connections(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    pub fn open(&self) {
        self.mood.send_replace(Mood::Open);
    }

    pub fn cut(&self) {
        self.mood.send_replace(Mood::Cut);
    }

    pub fn silence(&self) {
        self.mood.send_replace(Mood::Silent);
    }

    /// From now on chunks are held back for so long, on open connections too.
    pub fn set_delay(&self, delay: Duration) {
        self.delay.store(micros(delay), Ordering::Relaxed);
    }
}

fn micros(delay: Duration) -> u64 {
    u64::try_from(delay.as_micros()).expect("a delay")
}

async fn pass(client: TcpStream, port: u16, delay: Delay, mut mood: watch::Receiver<Mood>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let there = copy(client_read, server_write, Arc::clone(&delay), mood.clone());
    let back = copy(server_read, client_write, delay, mood.clone());
    tokio::select! {
        _ = there => {}
        _ = back => {}
        // An error is the proxy's own end.
        _ = mood.wait_for(|mood| *mood == Mood::Cut) => {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Delay,
    mut mood: watch::Receiver<Mood>,
) -> std::io::Result<()> {
    // What follows at once is on its way meanwhile: a long way delays, it does not make a queue.
    let (sender, mut way) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let read = async move {
        loop {
            let mut chunk = vec![0; 64 * 1024];
            let length = from.read(&mut chunk).await?;
            chunk.truncate(length);
            let held = Duration::from_micros(delay.load(Ordering::Relaxed));
            if length == 0 || sender.send((Instant::now() + held, chunk)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = way.recv().await {
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            if mood.wait_for(|mood| *mood != Mood::Silent).await.is_err() {
                return Ok(());
            }
            to.write_all(&chunk).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}

//! A proxy before PostgreSQL or its pooler that notes what is asked: how many round trips, and with which statements.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One round trip: what was sent up to a `Sync`, or one simple query.
#[derive(Clone, Debug, Default)]
pub struct Trip {
    pub sql: String,
    /// What was bound to its parameters, as it went over the wire.
    bound: Vec<u8>,
}

impl Trip {
    /// Whether a parameter holds this: a text, or the sixteen bytes of a UUID.
    pub fn mentions(&self, what: &[u8]) -> bool {
        self.bound.windows(what.len()).any(|window| window == what)
    }

    /// Whether its commit waits for the disk: it writes, and does not say otherwise.
    pub fn commits(&self) -> bool {
        let writes = ["INSERT INTO", "UPDATE ", "DELETE FROM"].iter().any(|word| self.sql.contains(word));
        (writes || self.sql == "COMMIT")
            && !self.sql.contains("set_config('synchronous_commit', 'off', true)")
    }

    pub fn appends(&self) -> bool {
        self.sql.contains("INSERT INTO response_events")
    }
}

/// Ends when it is dropped.
pub struct Tap {
    address: SocketAddr,
    trips: Arc<Mutex<Vec<Trip>>>,
    _tasks: JoinSet<()>,
}

impl Tap {
    /// Before `127.0.0.1:port`.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let trips = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&trips);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, port, Arc::clone(&noted)));
            }
        });
        Self { address, trips, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All round trips so far, in the order they were asked for.
    pub fn trips(&self) -> Vec<Trip> {
        self.trips.lock().unwrap().clone()
    }
}

async fn pass(client: TcpStream, port: u16, trips: Arc<Mutex<Vec<Trip>>>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    client.set_nodelay(true).and(server.set_nodelay(true)).expect("TCP_NODELAY");
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let there = async {
        let (mut messages, mut chunk) = (Messages::default(), vec![0; 64 * 1024]);
        loop {
            let length = client_read.read(&mut chunk).await.unwrap_or(0);
            if length == 0 {
                return;
            }
            messages.take(&chunk[..length], &trips);
            if server_write.write_all(&chunk[..length]).await.is_err() {
                return;
            }
        }
    };
    let back = tokio::io::copy(&mut server_read, &mut client_write);
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
}

/// What a client says, cut into messages.
#[derive(Default)]
struct Messages {
    buffer: Vec<u8>,
    started: bool,
    trip: Trip,
}

impl Messages {
    fn take(&mut self, bytes: &[u8], trips: &Mutex<Vec<Trip>>) {
        /// Of requests for encryption, which are answered and followed by the real beginning.
        const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];
        self.buffer.extend_from_slice(bytes);
        loop {
            let number = |at: usize| {
                let bytes = self.buffer.get(at..at + 4)?;
                Some(u32::from_be_bytes(bytes.try_into().expect("four bytes")))
            };
            // Only the first message has no kind.
            let before = usize::from(self.started);
            let Some(length) = number(before) else { return };
            let whole = before + usize::try_from(length).expect("a length");
            if self.buffer.len() < whole {
                return;
            }
            if !self.started {
                self.started = number(4).is_some_and(|code| !ENCRYPTION.contains(&code));
                self.buffer.drain(..whole);
                continue;
            }
            let message: Vec<u8> = self.buffer.drain(..whole).collect();
            self.message(message[0], &message[5..], trips);
        }
    }

    fn message(&mut self, kind: u8, body: &[u8], trips: &Mutex<Vec<Trip>>) {
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        match kind {
            b'P' => {
                let name = text(body).len() + 1;
                self.trip.sql = text(&body[name..]);
            }
            b'B' => self.trip.bound = body.to_vec(),
            b'Q' => {
                self.trip.sql = text(body);
                trips.lock().unwrap().push(std::mem::take(&mut self.trip));
            }
            b'S' => trips.lock().unwrap().push(std::mem::take(&mut self.trip)),
            _ => {}
        }
    }
}

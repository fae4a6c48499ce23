//! Ports for servers that cannot be handed a bound socket.
//!
//! Whatever can bind port 0 does that and says what it got. For PostgreSQL, PgBouncer, Azurite and a `devhost` that
//! must come back on its old port, a port is claimed by locking a file named after it: from a range the kernel hands to
//! no outgoing connection, so that nobody can take it between a stop and the next start.

use std::fs::File;
use std::net::TcpListener;

use super::Surroundings;

/// A port nobody else has for as long as this lives.
pub struct Port {
    number: u16,
    _claim: File,
}

impl Port {
    /// Claims a port that is free.
    pub fn claim(surroundings: &Surroundings) -> Self {
        let claims = surroundings.scratch.join("ports");
        std::fs::create_dir_all(&claims).expect("a directory for claims");
        for _ in 0..1_000 {
            let number = rand::random_range(15_000..30_000_u16);
            let claim = File::create(claims.join(number.to_string())).expect("a claim's file");
            if claim.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _claim: claim };
            }
        }
        panic!("no free port between 15000 and 30000");
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// Whether something accepts connections there.
    pub fn answers(&self) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", self.number)).is_ok()
    }
}

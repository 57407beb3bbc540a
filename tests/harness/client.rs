//! A client that sends bytes and reads replies as bytes.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::reply::Reply;
use crate::socket::{Address, Socket};

/// A blocking connection. Nothing waits for ever: a read or write without progress for [`Client::PATIENCE`] is an error.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<Socket>,
    writer: Socket,
}

/// A request as an array of bulk strings.
#[must_use]
pub fn request(args: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A request of words, none of them empty or with a blank in it: `words("SET k v")`.
#[must_use]
pub fn words(line: &str) -> Vec<u8> {
    request(&line.split_ascii_whitespace().collect::<Vec<_>>())
}

impl Client {
    /// How long a client waits unless told otherwise: longer than any deadline of the program under test.
    pub const PATIENCE: Duration = Duration::from_secs(15);

    /// Connects, or panics: most tests have no use for a server that cannot be reached.
    #[track_caller]
    #[must_use]
    pub fn connect(address: &Address) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("no connection to {address}: {error}"))
    }

    /// As [`Client::connect`]: every other one speaks RESP3.
    #[must_use]
    pub fn connect_in_turn(number: usize, address: &Address) -> Self {
        let mut client = Self::connect(address);
        if number % 2 == 1 {
            client.speak_resp3();
        }
        client
    }

    /// From here on it speaks RESP3.
    pub fn speak_resp3(&mut self) {
        assert!(self.call("HELLO 3").starts_with(b"%"), "RESP3 is spoken");
    }

    /// Connects.
    pub fn try_connect(address: &Address) -> io::Result<Self> {
        let writer = address.connect()?;
        let reader = BufReader::with_capacity(64 * 1024, writer.try_clone()?);
        let client = Self { reader, writer };
        client.set_patience(Self::PATIENCE);
        Ok(client)
    }

    /// Sets how long a read or write waits for progress.
    pub fn set_patience(&self, patience: Duration) {
        self.writer.set_timeout(patience).expect("a timeout above zero is valid");
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server takes what it is sent");
    }

    /// Sends bytes as they are.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    /// The next reply.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    /// The next reply, or why there is none.
    pub fn try_reply(&mut self) -> io::Result<Reply> {
        Reply::read(&mut self.reader)
    }

    /// Sends one request of words and gives its reply: `call("SET k v")`.
    #[track_caller]
    pub fn call(&mut self, line: &str) -> Reply {
        self.send(&words(line));
        self.reply()
    }

    /// Sends one request with arguments of any bytes and gives its reply.
    #[track_caller]
    pub fn command(&mut self, args: &[impl AsRef<[u8]>]) -> Reply {
        self.send(&request(args));
        self.reply()
    }

    /// Of a server, the ids of its connections that bear this name.
    #[track_caller]
    pub fn ids_of(&mut self, name: &str) -> Vec<String> {
        let list = self.call("CLIENT LIST");
        let list = String::from_utf8_lossy(list.bulk().expect("CLIENT LIST gives a text")).into_owned();
        let is_meant = |line: &&str| line.split(' ').any(|word| word.strip_prefix("name=") == Some(name));
        let id = |line: &str| line.split(' ').next()?.strip_prefix("id=").map(str::to_owned);
        list.lines().filter(is_meant).map(|line| id(line).expect("a client has an id")).collect()
    }

    /// Sends all requests in one write, then reads a reply to each.
    #[track_caller]
    pub fn pipeline(&mut self, lines: &[&str]) -> Vec<Reply> {
        let bytes = lines.iter().flat_map(|line| words(line)).collect::<Vec<_>>();
        self.exchange(&bytes, lines.len())
    }

    /// Sends `bytes` while reading so many replies: neither side can be blocked by the other's full buffers.
    #[track_caller]
    pub fn exchange(&mut self, bytes: &[u8], replies: usize) -> Vec<Reply> {
        let mut writer = self.writer.try_clone().expect("a second handle of an open socket");
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(bytes).expect("the server takes what it is sent"));
            (0..replies).map(|_| self.reply()).collect()
        })
    }

    /// Everything that still comes until the server closes. A reset counts as a close: it is what TCP makes of a close
    /// with bytes of ours unread.
    #[track_caller]
    pub fn rest_until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.reader.read(&mut chunk) {
                Ok(0) => return bytes,
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
                Err(error) if is_lost(&error) => return bytes,
                Err(error) => panic!("the server did not close the connection: {error}, after {:?}", Reply(bytes)),
            }
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        // The server may have closed already, and that is no fault here.
        let _ = self.writer.shutdown(Shutdown::Write);
    }

    /// A second handle for writing, so that a test can write and read at once.
    #[must_use]
    pub fn writer(&self) -> Socket {
        self.writer.try_clone().expect("a second handle of an open socket")
    }

    /// The side that is read, for replies too large to be held.
    pub fn reader(&mut self) -> &mut BufReader<Socket> {
        &mut self.reader
    }
}

/// Whether this error means that the peer is gone.
fn is_lost(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

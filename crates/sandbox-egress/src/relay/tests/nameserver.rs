//! A resolver for tests, by UDP and TCP: it says what it was told to say, and counts who asks.

use hickory_resolver::proto::{
    op::{Message, Metadata, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// What is known of a name: addresses, or another name.
#[derive(Clone)]
pub(super) enum Known {
    Addresses(Vec<IpAddr>),
    Alias(&'static str),
    /// Nothing is ever said of it.
    Silence,
}

#[derive(Default)]
struct Book {
    names: Mutex<HashMap<String, Known>>,
    asked: Mutex<Vec<String>>,
    is_closed: AtomicBool,
}

pub(super) struct NameServer {
    book: Arc<Book>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    pub(super) fn start() -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let book = Arc::new(Book::default());
        let (by_udp, by_tcp) = (Arc::clone(&book), Arc::clone(&book));
        let threads = vec![
            thread::spawn(move || serve_udp(&by_udp, &udp)),
            thread::spawn(move || serve_tcp(&by_tcp, &tcp)),
        ];
        Self {
            book,
            address,
            threads,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn know(&self, name: &str, known: Known) {
        let mut names = self.book.names.lock().unwrap();
        names.insert(name.to_owned(), known);
    }

    pub(super) fn know_addresses(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        self.know(name, Known::Addresses(addresses.collect()));
    }

    /// The names that it was asked for.
    pub(super) fn asked(&self) -> Vec<String> {
        self.book.asked.lock().unwrap().clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.book.is_closed.store(true, Ordering::SeqCst);
        let waker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        waker.send_to(&[], self.address).unwrap();
        let _ = std::net::TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Two sockets of the same port.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

fn serve_udp(book: &Book, socket: &UdpSocket) {
    let mut bytes = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut bytes) {
        if book.is_closed.load(Ordering::SeqCst) {
            return;
        }
        if let Some(mut answer) = answer(book, &bytes[..length]) {
            if answer.to_vec().unwrap().len() > 1232 {
                answer = answer.truncate();
            }
            let _ = socket.send_to(&answer.to_vec().unwrap(), from);
        }
    }
}

fn serve_tcp(book: &Book, listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        if book.is_closed.load(Ordering::SeqCst) {
            return;
        }
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).unwrap();
            let Some(answer) = answer(book, &query) else {
                break;
            };
            let answer = answer.to_vec().unwrap();
            let length = u16::try_from(answer.len()).unwrap();
            stream.write_all(&length.to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    }
}

fn answer(book: &Book, query: &[u8]) -> Option<Message> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let mut name = question.name().to_ascii().to_lowercase();
    book.asked.lock().unwrap().push(name.clone());
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.metadata = Metadata::response_from_request(&query.metadata);
    answer.metadata.recursion_available = true;
    answer.add_query(question.clone());
    let names = book.names.lock().unwrap();
    loop {
        let owner = Name::from_ascii(&name).unwrap();
        match names.get(name.trim_end_matches('.')) {
            None => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                return Some(answer);
            }
            Some(Known::Silence) => return None,
            Some(Known::Alias(next)) => {
                let target = Name::from_ascii(format!("{next}.")).unwrap();
                let data = RData::CNAME(rdata::CNAME(target));
                answer.add_answer(Record::from_rdata(owner, 60, data));
                name = format!("{next}.");
            }
            Some(Known::Addresses(addresses)) => {
                for address in addresses {
                    let data = match (address, question.query_type()) {
                        (IpAddr::V4(address), RecordType::A) => RData::A(rdata::A(*address)),
                        (IpAddr::V6(address), RecordType::AAAA) => {
                            RData::AAAA(rdata::AAAA(*address))
                        }
                        _ => continue,
                    };
                    answer.add_answer(Record::from_rdata(owner.clone(), 60, data));
                }
                return Some(answer);
            }
        }
    }
}

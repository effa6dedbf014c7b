//! Talks to the packet filter by netlink, for requests that are frequent or urgent, as it starts no process. `nft` does
//! the rest.

use std::{fmt, io, net::Ipv4Addr};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use stanchion_runtime::Protocol;

use super::leases::protocol_name;

// linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLA_F_NESTED: u16 = 0x8000;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_BATCH_GENID: u16 = 1;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;

/// Sizes of headers, bytes: those of a message, of a message of the packet filter, and of an attribute.
const HEADER: usize = 16;
const FILTER_HEADER: usize = HEADER + 4;
const ATTRIBUTE_HEADER: usize = 4;

/// Hardware address of Ethernet.
pub(super) type HardwareAddress = [u8; 6];

/// Family of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Ip = 2,
    Bridge = 7,
}

/// Part of a set's key or of a map's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Link(String),
    Hardware(HardwareAddress),
    Address(Ipv4Addr),
    Protocol(Protocol),
    Port(u16),
}

/// Element of a set, or of a map if it has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub family: Family,
    pub set: &'static str,
    pub key: Vec<Field>,
    pub value: Vec<Field>,
}

/// Change to elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

/// Formats the field in the syntax of `nft`.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "\"{name}\""),
            Self::Hardware(address) => f.write_str(&address.map(|byte| format!("{byte:02x}")).join(":")),
            Self::Address(address) => write!(f, "{address}"),
            Self::Protocol(protocol) => f.write_str(protocol_name(*protocol)),
            Self::Port(port) => write!(f, "{port}"),
        }
    }
}

/// Formats the element in the syntax of `nft`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |fields: &[Field]| fields.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . ");
        f.write_str(&joined(&self.key))?;
        if self.value.is_empty() { Ok(()) } else { write!(f, " : {}", joined(&self.value)) }
    }
}

impl Field {
    /// Returns the field as in the kernel's registers, of four bytes each.
    fn registers(&self) -> Vec<u8> {
        let (bytes, length) = match self {
            // The size is `IFNAMSIZ`.
            Self::Link(name) => (name.as_bytes().to_vec(), 16),
            Self::Hardware(address) => (address.to_vec(), 8),
            Self::Address(address) => (address.octets().to_vec(), 4),
            Self::Protocol(Protocol::Tcp) => (vec![6], 4),
            Self::Protocol(Protocol::Udp) => (vec![17], 4),
            Self::Protocol(Protocol::Sctp) => (vec![132], 4),
            Self::Port(port) => (port.to_be_bytes().to_vec(), 4),
        };
        let mut bytes = bytes;
        bytes.resize(length, 0);
        bytes
    }
}

/// Returns the generation of the packet filter's rules in the calling thread's network namespace: every change, by any
/// program, makes another.
pub(super) fn generation() -> io::Result<u32> {
    let socket = open()?;
    socket.send(&message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0, 0, &[]), 0)?;
    let answer = socket.recv_from_full()?.0;
    let kind = u16_at(&answer, 4);
    if kind != Some(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN) {
        return Err(refusal(&answer).unwrap_or_else(|| unexpected("the number of the packet filter's rules")));
    }
    let mut rest = answer.get(FILTER_HEADER..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        if kind == NFTA_GEN_ID
            && let Some(value) = rest.get(ATTRIBUTE_HEADER..length).and_then(|it| it.try_into().ok())
        {
            return Ok(u32::from_be_bytes(value));
        }
        rest = rest.get(length.max(ATTRIBUTE_HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    Err(unexpected("the number of the packet filter's rules"))
}

/// Adds elements to the sets of a table, or removes them, all or none. Returns the generation of the rules after that.
/// Fails if the rules have another generation than `generation`.
pub(super) fn change(table: &str, change: Change, elements: &[Element], generation: u32) -> io::Result<u32> {
    let (kind, flags) = match change {
        Change::Add => (NFT_MSG_NEWSETELEM, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE),
        Change::Remove => (NFT_MSG_DELSETELEM, NLM_F_REQUEST | NLM_F_ACK),
    };
    // A batch without elements does not change the generation.
    if elements.is_empty() {
        return Ok(generation);
    }
    let known = attribute(NFNL_BATCH_GENID, &generation.to_be_bytes());
    let mut batch = message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, 0, NFNL_SUBSYS_NFTABLES, &known);
    for (number, element) in (1..).zip(elements) {
        let body = body(table, element);
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        batch.extend(message(kind, flags, number, element.family as u8, 0, &body));
    }
    batch.extend(message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, 0, 0, NFNL_SUBSYS_NFTABLES, &[]));
    let socket = open()?;
    socket.send(&batch, 0)?;
    let mut acknowledged = 0;
    while acknowledged < elements.len() {
        let mut answers = &socket.recv_from_full()?.0[..];
        while let Some(length) = u32_at(answers, 0).and_then(|it| usize::try_from(it).ok()).filter(|it| *it >= HEADER) {
            if let Some(error) = refusal(answers) {
                return Err(error);
            }
            acknowledged += 1;
            answers = answers.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    // The kernel leaves out zero. Elements that were there before leave the generation as it is.
    match self::generation()? {
        now if now == generation || now == generation.wrapping_add(1).max(1) => Ok(now),
        _ => Err(io::Error::other("somebody else changed the packet filter's rules meanwhile")),
    }
}

fn body(table: &str, element: &Element) -> Vec<u8> {
    let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), b"\0"].concat());
    let data = |kind, fields: &[Field]| {
        let registers: Vec<_> = fields.iter().flat_map(Field::registers).collect();
        attribute(kind | NLA_F_NESTED, &attribute(NFTA_DATA_VALUE, &registers))
    };
    let mut parts = data(NFTA_SET_ELEM_KEY, &element.key);
    if !element.value.is_empty() {
        parts.extend(data(NFTA_SET_ELEM_DATA, &element.value));
    }
    let one = attribute(NFTA_LIST_ELEM | NLA_F_NESTED, &parts);
    [
        text(NFTA_SET_ELEM_LIST_TABLE, table),
        text(NFTA_SET_ELEM_LIST_SET, element.set),
        attribute(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, &one),
    ]
    .concat()
}

/// Opens a socket to the packet filter. The kernel answers while a message is sent, so no read has to wait.
fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

fn message(kind: u16, flags: u16, number: u32, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(FILTER_HEADER + attributes.len()).expect("a message has some hundred bytes");
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(number.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend([family, 0]);
    message.extend(resource.to_be_bytes());
    message.extend(attributes);
    message
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE_HEADER + payload.len()).expect("an attribute has some hundred bytes");
    let mut attribute = Vec::new();
    attribute.extend(length.to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(payload);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// Returns the error that an answer begins with, if any.
fn refusal(answer: &[u8]) -> Option<io::Error> {
    let number = u32_at(answer, HEADER).filter(|_| u16_at(answer, 4) == Some(NLMSG_ERROR))?.cast_signed();
    (number != 0).then(|| io::Error::from_raw_os_error(-number))
}

fn unexpected(what: &str) -> io::Error {
    io::Error::other(format!("the kernel did not answer with {what}"))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

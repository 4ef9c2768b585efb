use super::sandbox::Sandbox;
use super::switch::{Link, Switch, mac};
use crate::disk::run;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{self, Command, Stdio};
use std::time::Duration;

/// Where the nodes live: each in a network namespace of its own, or all on loopback addresses.
#[derive(Debug)]
pub struct Net {
    hosts: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Namespaces(Switch),
    /// Addresses 127.`a`.`b`.1 and on.
    Loopback(u8, u8, String),
}

/// The port of the switch that the clients are at; host `n` is at `n` + 1.
const CLIENTS: usize = 0;

impl Net {
    /// Room for so many nodes.
    ///
    /// # Errors
    /// A tool fails.
    pub fn new(hosts: usize, sandbox: &Sandbox, seed: u64) -> io::Result<Self> {
        let denied = match sandbox {
            Sandbox::Inside(_) => match namespaces(hosts, seed) {
                Ok(switch) => return Ok(Self { hosts, kind: Kind::Namespaces(switch) }),
                Err(error) => error.to_string(),
            },
            Sandbox::Denied(_, why) => why.clone(),
        };
        if matches!(sandbox, Sandbox::Inside(_)) {
            run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        }
        Ok(Self { hosts, kind: loopback(&denied) })
    }

    /// Loopback addresses, for tests that cut nothing.
    #[must_use]
    pub fn loopback(hosts: usize) -> Self {
        Self { hosts, kind: loopback("it was not asked for") }
    }

    /// How many nodes there is room for.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts
    }

    /// Why links cannot be cut; `None`: they can.
    #[must_use]
    pub fn limits(&self) -> Option<&str> {
        match &self.kind {
            Kind::Namespaces(_) => None,
            Kind::Loopback(_, _, why) => Some(why),
        }
    }

    /// The address of a host.
    #[must_use]
    pub fn address(&self, host: usize) -> IpAddr {
        let last = host as u8 + 1;
        match self.kind {
            Kind::Namespaces(_) => Ipv4Addr::new(10, 77, 0, last).into(),
            Kind::Loopback(a, b, _) => Ipv4Addr::new(127, a, b, last).into(),
        }
    }

    /// A command that runs a program at a host. Its process id is the program's.
    #[must_use]
    pub fn command(&self, host: usize, program: &std::path::Path) -> Command {
        match self.kind {
            Kind::Namespaces(_) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/node{}", host + 1)).arg("--").arg(program);
                command
            }
            Kind::Loopback(..) => Command::new(program),
        }
    }

    /// From now on nothing goes from one host to the other.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.set(from, to, |link| link.cut = true);
    }

    /// From now on nothing goes between two groups.
    pub fn cut(&self, these: &[usize], those: &[usize]) {
        for &one in these {
            for &other in those {
                self.cut_one_way(one, other);
                self.cut_one_way(other, one);
            }
        }
    }

    /// Loses a share of what comes from a host and of what goes to it, in percent; clients keep their lines.
    pub fn lose(&self, host: usize, percent: u8) {
        for other in (0..self.hosts).filter(|other| *other != host) {
            self.set(host, other, |link| link.loss = percent);
            self.set(other, host, |link| link.loss = percent);
        }
    }

    /// Delays what goes between any two hosts, each way.
    pub fn delay(&self, delay: Duration, jitter: Duration) {
        for from in 0..self.hosts {
            for to in (0..self.hosts).filter(|to| *to != from) {
                self.set(from, to, |link| (link.delay, link.jitter) = (delay, jitter));
            }
        }
    }

    /// All links are whole again.
    pub fn heal(&self) {
        for from in 0..self.hosts {
            for to in 0..self.hosts {
                self.set(from, to, |link| *link = Link::default());
            }
        }
    }

    fn set(&self, from: usize, to: usize, change: impl FnOnce(&mut Link)) {
        if let Kind::Namespaces(switch) = &self.kind {
            switch.set(from + 1, to + 1, change);
        }
    }
}

fn loopback(why: &str) -> Kind {
    // Runs at the same time have addresses of their own.
    let id = process::id();
    Kind::Loopback(64 + (id >> 8 & 0x3f) as u8, id as u8, why.to_owned())
}

fn namespaces(hosts: usize, seed: u64) -> io::Result<Switch> {
    let ip = |line: &str| run(Command::new("ip").args(line.split(' ')));
    std::fs::create_dir_all("/run/netns")?;
    run(Command::new("mount").args(["-t", "tmpfs", "netns", "/run/netns"]))?;
    let devices: Vec<String> = (0..=hosts).map(|port| format!("tap{port}")).collect();
    let taps = open_taps(&devices)?;
    ip("link set lo up")?;
    for (port, device) in devices.iter().enumerate() {
        let namespace = format!("node{port}");
        let here = if port == CLIENTS {
            String::new()
        } else {
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("link set {device} netns {namespace}"))?;
            format!("-n {namespace} ")
        };
        let last = if port == CLIENTS { 254 } else { port };
        if port != CLIENTS {
            ip(&format!("{here}link set lo up"))?;
        }
        ip(&format!("{here}link set {device} address {} up", mac(port)))?;
        ip(&format!("{here}address add 10.77.0.{last}/24 dev {device}"))?;
        for neighbour in (0..=hosts).filter(|neighbour| *neighbour != port) {
            let last = if neighbour == CLIENTS { 254 } else { neighbour };
            ip(&format!("{here}neigh add 10.77.0.{last} lladdr {} dev {device} nud permanent", mac(neighbour)))?;
        }
    }
    Ok(Switch::start(taps, seed))
}

/// Makes TAP devices. Their files come from a helper, because `TUNSETIFF` needs a raw ioctl.
fn open_taps(devices: &[String]) -> io::Result<Vec<File>> {
    const OPEN: &str = "import array, fcntl, os, socket, struct, sys\n\
        out = socket.socket(fileno=0)\n\
        for name in sys.argv[1:]:\n\
        \x20   tap = os.open('/dev/net/tun', os.O_RDWR)\n\
        \x20   fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', name.encode(), 0x1002))\n\
        \x20   out.sendmsg([b'.'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [tap]))])";
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new("python3")
        .args(["-c", OPEN])
        .args(devices)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("python3: {error}")))?;
    let mut files = Vec::new();
    while files.len() < devices.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let got = recvmsg(&ours, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if got.bytes == 0 {
            break;
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                files.extend(fds.map(File::from));
            }
        }
    }
    let output = child.wait().and_then(|_| {
        let mut text = String::new();
        child.stderr.take().map_or(Ok(0), |mut stderr| io::Read::read_to_string(&mut stderr, &mut text)).map(|_| text)
    })?;
    if files.len() < devices.len() {
        let last = output.trim().lines().last().unwrap_or("no file came").to_owned();
        return Err(io::Error::other(format!("no TAP devices: {last}")));
    }
    Ok(files)
}

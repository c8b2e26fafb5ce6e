//! What a master is started with, checked; and the first things that can go wrong, each with what
//! to do about it.

use crate::cli::MasterArgs;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use taskmaster_blobs::Address;
use taskmaster_engine::settings::{Durability, Keep};
use taskmaster_protocol::time::parse_duration_us;

/// A master's settings.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its data folder.
    pub data: PathBuf,
    /// Its module folder.
    pub tasks: PathBuf,
    /// What others must show; see [`MasterConfig::settle_token`].
    pub token: Option<String>,
    /// When an add is acknowledged.
    pub durability: Durability,
    /// What is kept of finished tasks.
    pub keep: Keep,
    /// The object store in which blobs are kept; `None`: in the data folder.
    pub blobs: Option<Address>,
    /// What the blob folder may take where it is a cache of an object store, bytes.
    pub blob_cache_bytes: u64,
    /// How long blobs are kept that nothing names.
    pub blob_grace: Duration,
    /// Only modules on the list in the module folder are used.
    pub require_approved: bool,
    /// Limit of one attempt where its task names none.
    pub task_timeout: Duration,
    /// Limit of one attempt where its task names none, MiB.
    pub memory_mb: u32,
    /// Memory that tasks which have not ended may take, bytes.
    pub queue_bytes: u64,
    /// How long running attempts may go on at a stop.
    pub grace: Duration,
}

/// Why a master does not start; a sentence with what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting cannot be read.
    #[error("{flag}: {why}")]
    Setting {
        /// The flag.
        flag: &'static str,
        /// What is wrong with its value.
        why: String,
    },
    /// Somebody else has the port.
    #[error(
        "{0} is in use: another master runs there, perhaps; stop it, or take another port with --listen (port 0: a free one)"
    )]
    PortInUse(SocketAddr),
    /// The port cannot be had.
    #[error("cannot listen on {0}: {1}; choose another address with --listen")]
    Listen(SocketAddr, io::Error),
    /// The data folder cannot be written.
    #[error(
        "the data folder {0} cannot be written: {1}; make it writable, or choose another with --data"
    )]
    Unwritable(PathBuf, io::Error),
    /// Another master has the data folder.
    #[error(
        "the data folder {0} is in use by another master; stop it, or choose another folder with --data"
    )]
    Locked(PathBuf),
}

impl MasterConfig {
    /// Reads what was typed.
    pub fn new(args: MasterArgs) -> Result<MasterConfig, ConfigError> {
        let setting = |flag: &'static str| move |why: String| ConfigError::Setting { flag, why };
        if args
            .token
            .as_deref()
            .is_some_and(|token| token.trim().is_empty() || !token.is_ascii())
        {
            return Err(setting("--token")(
                "a token has at least one character, ASCII only".into(),
            ));
        }
        Ok(MasterConfig {
            listen: read_listen(&args.listen).map_err(setting("--listen"))?,
            data: args.data,
            tasks: args.tasks,
            token: args.token.map(|token| token.trim().to_owned()),
            durability: read_durability(&args.durability).map_err(setting("--durability"))?,
            keep: read_keep(&args.keep).map_err(setting("--keep"))?,
            blobs: args
                .blobs
                .as_deref()
                .map(Address::parse)
                .transpose()
                .map_err(setting("--blobs"))?,
            blob_cache_bytes: args.blob_cache_mb << 20,
            blob_grace: parse_duration_us(&args.blob_grace)
                .map(Duration::from_micros)
                .map_err(setting("--blob-grace"))?,
            require_approved: args.require_approved,
            task_timeout: parse_duration_us(&args.task_timeout)
                .map(Duration::from_micros)
                .map_err(setting("--task-timeout"))?,
            memory_mb: args.memory_mb,
            queue_bytes: args
                .queue_mb
                .map_or_else(half_of_memory, |mb| u64::from(mb) << 20),
            grace: parse_duration_us(&args.grace)
                .map(Duration::from_micros)
                .map_err(setting("--grace"))?,
        })
    }

    /// Takes the port. Done before anything is touched on disk: a second `up` by mistake changes
    /// nothing.
    pub fn bind(&self) -> Result<TcpListener, ConfigError> {
        let fail = |error: io::Error| match error.kind() {
            ErrorKind::AddrInUse => ConfigError::PortInUse(self.listen),
            _ => ConfigError::Listen(self.listen, error),
        };
        let listener = TcpListener::bind(self.listen).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        Ok(listener)
    }

    /// See [`lock_data`].
    pub fn lock_data(&self) -> Result<DataLock, ConfigError> {
        lock_data(&self.data)
    }

    /// Whether only this machine can connect.
    pub fn is_local(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    /// A master that others can reach has a token: the one given, or the one of its last start, or
    /// a new one. Needs the data folder.
    pub fn settle_token(&mut self) -> Result<(), ConfigError> {
        if self.token.is_some() || self.is_local() {
            return Ok(());
        }
        let fail = |error| ConfigError::Unwritable(self.data.clone(), error);
        let path = self.data.join("token");
        let token = match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            Ok(_) => make_token(&path).map_err(fail)?,
            Err(error) if error.kind() == ErrorKind::NotFound => make_token(&path).map_err(fail)?,
            Err(error) => return Err(fail(error)),
        };
        self.token = Some(token);
        Ok(())
    }

    /// The line to type on another machine; `None` where none can connect. `port` is the one that
    /// was taken.
    pub fn invitation(&self, port: u16) -> Option<String> {
        if self.is_local() {
            return None;
        }
        let host = match self.listen.ip() {
            ip if ip.is_unspecified() => own_address(),
            ip => SocketAddr::new(ip, 0)
                .to_string()
                .trim_end_matches(":0")
                .to_owned(),
        };
        let token = self.token.as_deref().unwrap_or_default();
        Some(format!(
            "taskmaster runner --url ws://{host}:{port} --token {token}"
        ))
    }
}

/// Half of this machine's memory, or of what this process's group may have where that is less;
/// where nobody tells, 2 GiB.
fn half_of_memory() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|rest| {
        rest.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    total
        .map(|kib| kib << 10)
        .into_iter()
        .chain(group)
        .min()
        .unwrap_or(4 << 30)
        / 2
}

/// The address under which other machines most likely see this one: the one from which it would
/// send. A UDP socket that is connected asks the routing table and sends nothing; the address is
/// one that documentation may use (RFC 5737).
fn own_address() -> String {
    let routed = || {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
        socket.connect(("192.0.2.1", 9)).ok()?;
        socket
            .local_addr()
            .ok()
            .map(|address| address.ip())
            .filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    };
    routed().map_or_else(|| "THIS-MACHINE".to_owned(), |ip| ip.to_string())
}

/// Makes the data folder and takes it for this process; free again when the value is dropped, or
/// the process ends in whatever way.
pub fn lock_data(data: &Path) -> Result<DataLock, ConfigError> {
    let fail = |error| ConfigError::Unwritable(data.to_owned(), error);
    fs::create_dir_all(data).map_err(fail)?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(data.join("lock"))
        .map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(DataLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(ConfigError::Locked(data.to_owned())),
        Err(TryLockError::Error(error)) => Err(fail(error)),
    }
}

/// The data folder, taken by this process.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

fn read_listen(text: &str) -> Result<SocketAddr, String> {
    let wrong = |why: &str| {
        format!("`{text}` is no address to listen on ({why}); write it like 127.0.0.1:3232")
    };
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| wrong(&error.to_string()))?;
    found.next().ok_or_else(|| wrong("the name leads nowhere"))
}

fn read_durability(text: &str) -> Result<Durability, String> {
    if text == "sync" {
        return Ok(Durability::Sync);
    }
    let wrong =
        || format!("`{text}` is neither `sync` nor `interval:MS` with 1 to 60000 milliseconds");
    let ms = text.strip_prefix("interval:").ok_or_else(wrong)?;
    let ms: u64 = ms
        .strip_suffix("ms")
        .unwrap_or(ms)
        .parse()
        .map_err(|_| wrong())?;
    if (1..=60_000).contains(&ms) {
        Ok(Durability::Interval(Duration::from_millis(ms)))
    } else {
        Err(wrong())
    }
}

fn read_keep(text: &str) -> Result<Keep, String> {
    let (mut time, mut count) = (None, None);
    let twice = || {
        format!("`{text}` says the same thing twice; write a time, a number, or both: 7d,1000000")
    };
    for part in text.split(',').map(str::trim) {
        if let Ok(number) = part.parse::<u64>() {
            count.replace(number).map_or(Ok(()), |_| Err(twice()))?;
        } else {
            let us = parse_duration_us(part).map_err(|_| {
                format!("`{part}` is neither a time such as 7d nor a number of tasks")
            })?;
            time.replace(Duration::from_micros(us))
                .map_or(Ok(()), |_| Err(twice()))?;
        }
    }
    // What is not said has no limit: `--keep 1000` keeps a thousand, however old.
    Ok(Keep {
        time: time.unwrap_or(Duration::MAX),
        count: count.unwrap_or(u64::MAX),
    })
}

/// 128 random bits, from the system's source, as 32 hexadecimal digits; readable by this user
/// alone.
fn make_token(path: &Path) -> io::Result<String> {
    let mut random = [0; 16];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let unfinished = path.with_extension("new");
    let _ = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&unfinished)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn args(listen: &str, data: &Path) -> MasterArgs {
        MasterArgs {
            listen: listen.into(),
            data: data.to_owned(),
            tasks: data.join("tasks"),
            token: None,
            durability: "sync".into(),
            keep: "7d,1000000".into(),
            blobs: None,
            blob_cache_mb: 1,
            blob_grace: "1h".into(),
            require_approved: false,
            task_timeout: "1h".into(),
            memory_mb: 512,
            queue_mb: None,
            grace: "30s".into(),
        }
    }

    #[test]
    fn settings_are_read_or_told_what_is_wrong() {
        assert_eq!(
            read_durability("interval:50"),
            Ok(Durability::Interval(Duration::from_millis(50)))
        );
        assert_eq!(
            read_durability("interval:50").unwrap().to_string(),
            "interval:50"
        );
        assert_eq!(read_keep("7d,1000000"), Ok(Keep::default()));
        assert_eq!(
            read_keep("5"),
            Ok(Keep {
                time: Duration::MAX,
                count: 5
            })
        );
        assert_eq!(read_keep("2h").unwrap().time, Duration::from_secs(7_200));
        for bad in [
            "async",
            "interval:",
            "interval:0",
            "interval:x",
            "interval:99999999",
        ] {
            assert!(read_durability(bad).unwrap_err().contains(bad));
        }
        for bad in ["", "7x", "1,2", "1d,2d"] {
            assert!(read_keep(bad).is_err(), "{bad}");
        }
        for bad in ["3232", "127.0.0.1", "127.0.0.1:x", ""] {
            assert!(
                read_listen(bad).unwrap_err().contains("127.0.0.1:3232"),
                "{bad}"
            );
        }
        let mut wrong = args("127.0.0.1:0", Path::new("/x"));
        wrong.grace = "soon".into();
        assert!(
            MasterConfig::new(wrong)
                .unwrap_err()
                .to_string()
                .starts_with("--grace: `soon`")
        );
        let mut wrong = args("127.0.0.1:0", Path::new("/x"));
        wrong.blobs = Some("gs://bucket".into());
        assert!(
            MasterConfig::new(wrong)
                .unwrap_err()
                .to_string()
                .starts_with("--blobs: `gs://bucket`")
        );
    }

    #[test]
    fn a_master_that_others_reach_has_a_token_and_keeps_it() {
        let scratch = tempfile::tempdir().unwrap();
        let mut local = MasterConfig::new(args("127.0.0.1:0", scratch.path())).unwrap();
        local.settle_token().unwrap();
        assert_eq!((local.token.clone(), local.invitation(1)), (None, None));
        let mut config = MasterConfig::new(args("0.0.0.0:0", scratch.path())).unwrap();
        config.settle_token().unwrap();
        let token = config.token.clone().unwrap();
        assert!(token.len() == 32 && token.bytes().all(|b| b.is_ascii_hexdigit()));
        let mode = fs::metadata(scratch.path().join("token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut again = MasterConfig::new(args("0.0.0.0:0", scratch.path())).unwrap();
        again.settle_token().unwrap();
        assert_eq!(again.token, Some(token.clone()));
        let host = own_address();
        assert_eq!(
            again.invitation(99),
            Some(format!(
                "taskmaster runner --url ws://{host}:99 --token {token}"
            ))
        );
    }

    #[test]
    fn what_is_taken_is_told_with_what_to_do() {
        let scratch = tempfile::tempdir().unwrap();
        let mut config = MasterConfig::new(args("127.0.0.1:0", scratch.path())).unwrap();
        let first = config.bind().unwrap();
        config.listen = first.local_addr().unwrap();
        assert!(config.bind().unwrap_err().to_string().contains("is in use"));
        let lock = config.lock_data().unwrap();
        assert!(matches!(config.lock_data(), Err(ConfigError::Locked(_))));
        drop(lock);
        config.lock_data().unwrap();
        config.data = scratch.path().join("lock").join("data");
        assert!(
            config
                .lock_data()
                .unwrap_err()
                .to_string()
                .contains("--data")
        );
    }
}

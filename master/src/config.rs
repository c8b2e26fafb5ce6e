//! What a master is started with, checked, and the first things that can go wrong, each with what
//! to do about it.

use crate::cli::MasterArgs;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use taskmaster_blobs::{AddressError, BucketAddress, OpenError};
use taskmaster_engine::settings::{Durability, Keep};
use taskmaster_protocol::time::parse_duration_us;
use taskmaster_protocol::token;

/// A master's settings.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// The address and port to listen on.
    pub listen: SocketAddr,
    /// The data folder.
    pub data: PathBuf,
    /// The task folder, which holds the modules.
    pub tasks: PathBuf,
    /// The token that others must show. [`MasterConfig::make_token`] makes one where it is wanted.
    pub token: Option<String>,
    /// When an add is acknowledged.
    pub durability: Durability,
    /// How many finished tasks are kept, and for how long.
    pub keep: Keep,
    /// The bucket in which blobs are kept. `None`: they are kept in the data folder.
    pub blobs: Option<BucketAddress>,
    /// Bytes that the blob folder may take as a cache of a bucket.
    pub blob_cache_bytes: u64,
    /// How long blobs are kept that nothing names.
    pub blob_grace: Duration,
    /// Only modules on the list in the task folder are used.
    pub require_approved: bool,
    /// The time that one attempt may take where its task names none.
    pub task_timeout: Duration,
    /// The memory of one attempt where its task names none, MiB.
    pub memory_mb: u32,
    /// Memory that tasks which have not ended may take, bytes.
    pub queue_bytes: u64,
    /// Bytes that kept answers may have together, with their blobs.
    pub cache_bytes: u64,
    /// How long running attempts may go on at a stop.
    pub grace: Duration,
}

/// Why a master does not start; a sentence with what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting cannot be read.
    #[error("{flag}: {why}")]
    Setting {
        /// The option of the command line.
        flag: &'static str,
        /// What is wrong with its value.
        why: SettingError,
    },
    /// Another program has the port.
    #[error(
        "{0} is in use: another master runs there, perhaps; stop it, or take another port with \
         --listen (port 0: a free one)"
    )]
    PortInUse(SocketAddr),
    /// The port cannot be opened.
    #[error("cannot listen on {0}: {1}; choose another address with --listen")]
    Listen(SocketAddr, io::Error),
    /// The data folder cannot be written.
    #[error(
        "the data folder {0} cannot be written: {1}; make it writable, or choose another with \
         --data"
    )]
    Unwritable(PathBuf, io::Error),
    /// Another master has the data folder.
    #[error(
        "the data folder {0} is in use by another master; stop it, or choose another folder with \
         --data"
    )]
    Locked(PathBuf),
}

/// What is wrong with the value of a setting.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// The token is empty, or has other characters than ASCII, or several lines.
    #[error("a token is one line of ASCII characters, at least one")]
    Token,
    /// The address cannot be listened on.
    #[error("`{text}` is no address to listen on ({why}); write it like 127.0.0.1:3232")]
    Listen {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is no durability.
    #[error("`{0}` is neither `sync` nor `interval:MS` with 1 to 60000 milliseconds")]
    Durability(String),
    /// A part of what is kept is no limit.
    #[error("`{0}` is neither a time such as 7d nor a number of tasks")]
    Keep(String),
    /// What is kept has two times, or two numbers.
    #[error("`{0}` says the same thing twice; write a time, a number, or both: 7d,1000000")]
    KeepTwice(String),
    /// It is no address of a bucket.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The blobs cannot be had in this bucket, or in the folder.
    #[error(transparent)]
    Blobs(#[from] OpenError),
    /// It is no time.
    #[error("{0}")]
    Time(String),
}

impl MasterConfig {
    /// Reads what was typed.
    pub fn new(args: MasterArgs) -> Result<MasterConfig, ConfigError> {
        let blobs = args.blobs.as_deref().map(read_address).transpose();
        let queue_bytes = match args.queue_mb {
            Some(mb) => u64::from(mb) << 20,
            None => half_of_memory(),
        };
        Ok(MasterConfig {
            token: of_flag("--token", read_token(args.token))?,
            listen: of_flag("--listen", read_listen(&args.listen))?,
            data: args.data,
            tasks: args.tasks,
            durability: of_flag("--durability", read_durability(&args.durability))?,
            keep: of_flag("--keep", read_keep(&args.keep))?,
            blobs: of_flag("--blobs", blobs)?,
            blob_cache_bytes: args.blob_cache_mb << 20,
            blob_grace: of_flag("--blob-grace", read_time(&args.blob_grace))?,
            require_approved: args.require_approved,
            task_timeout: of_flag("--task-timeout", read_time(&args.task_timeout))?,
            memory_mb: args.memory_mb,
            queue_bytes,
            cache_bytes: args.cache_mb << 20,
            grace: of_flag("--grace", read_time(&args.grace))?,
        })
    }

    /// Takes the port. This is done before anything on the disk is touched, so a second `up` by
    /// mistake changes nothing.
    pub fn bind(&self) -> Result<TcpListener, ConfigError> {
        let fail = |error: io::Error| match error.kind() {
            ErrorKind::AddrInUse => ConfigError::PortInUse(self.listen),
            _ => ConfigError::Listen(self.listen, error),
        };
        let listener = TcpListener::bind(self.listen).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        Ok(listener)
    }

    /// Takes the data folder, as [`lock_data`] does.
    pub fn lock_data(&self) -> Result<DataLock, ConfigError> {
        lock_data(&self.data)
    }

    /// Whether only this machine can connect.
    pub fn is_local(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    /// A master that others can reach has a token: the one that was typed, the one of its last
    /// start, or a new one. The data folder must be there.
    pub fn make_token(&mut self) -> Result<(), ConfigError> {
        if self.token.is_some() || self.is_local() {
            return Ok(());
        }
        let fail = |error| ConfigError::Unwritable(self.data.clone(), error);
        let path = self.data.join("token");
        narrow(&path, 0o600);
        let token = match fs::read_to_string(&path) {
            Ok(text) => match token::read(&text) {
                Ok(Some(token)) => token,
                Ok(None) => write_new_token(&path).map_err(fail)?,
                Err(error) => {
                    return Err(fail(io::Error::new(ErrorKind::InvalidData, error)));
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {
                write_new_token(&path).map_err(fail)?
            }
            Err(error) => return Err(fail(error)),
        };
        self.token = Some(token);
        Ok(())
    }

    /// The line to type on another machine. `None` where no other machine can connect. `port` is
    /// the one that was taken.
    pub fn invitation(&self, port: u16) -> Option<Invitation> {
        if self.is_local() {
            return None;
        }
        let ip = match self.listen.ip() {
            ip if ip.is_unspecified() => own_address(),
            ip => Some(ip),
        };
        let authority = match ip {
            Some(ip) => SocketAddr::new(ip, port).to_string(),
            None => format!("ADDRESS:{port}"),
        };
        let token = self.token.as_deref().unwrap_or_default();
        Some(Invitation {
            line: format!("taskmaster runner --url ws://{authority} --token {token}"),
            lacks_address: ip.is_none(),
        })
    }
}

/// The line to type on another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The command with its options.
    pub line: String,
    /// Whether the line says ADDRESS, because this machine knows no address of its own that others
    /// could reach.
    pub lacks_address: bool,
}

/// Memory that is reckoned with where the system tells of none, bytes.
const MEMORY_BYTES_DEFAULT: u64 = 4 << 30;

/// Half of the memory that this process may use.
fn half_of_memory() -> u64 {
    match taskmaster_machine::memory_bytes() {
        0 => MEMORY_BYTES_DEFAULT / 2,
        bytes => bytes / 2,
    }
}

/// The address under which other machines most likely see this one: that from which it would send
/// beyond its own networks, or into the first of these where there is no way beyond them.
fn own_address() -> Option<IpAddr> {
    /// An address that documentation may use (RFC 5737).
    const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    std::iter::once(BEYOND)
        .chain(neighbours(&routes))
        .find_map(address_towards)
}

/// The address from which this machine would send to `target`. To connect a UDP socket asks the
/// routing table and sends nothing.
fn address_towards(target: Ipv4Addr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((target, 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

/// An address in each network to which the kernel's table has a route, in its order. The table has
/// addresses as hexadecimal numbers in the machine's own order of bytes.
fn neighbours(routes: &str) -> impl Iterator<Item = Ipv4Addr> {
    let destinations = routes.lines().skip(1).filter_map(|route| {
        let destination = route.split_whitespace().nth(1)?;
        u32::from_str_radix(destination, 16).ok()
    });
    destinations
        .map(|number| u32::from(Ipv4Addr::from(number.to_ne_bytes())))
        .filter(|network| *network != 0)
        .map(|network| Ipv4Addr::from(network | 1))
}

/// Makes the data folder and takes it for this process. It is free again when the value is dropped,
/// or when the process ends in whatever way.
pub fn lock_data(data: &Path) -> Result<DataLock, ConfigError> {
    let fail = |error| ConfigError::Unwritable(data.to_owned(), error);
    make_private_folder(data).map_err(fail)?;
    narrow(data, 0o700);
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

/// Makes a folder that only this user can enter, and its parents. One that is there stays as it is.
pub(crate) fn make_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Takes the rights from everybody but this user, because params, results and the token are nobody
/// else's. Where that cannot be done, the operator is told.
fn narrow(path: &Path, wanted: u32) {
    let Ok(mode) = fs::metadata(path).map(|about| about.permissions().mode() & 0o777) else {
        return;
    };
    if mode & !wanted == 0 {
        return;
    }
    let shown = path.display();
    match fs::set_permissions(path, Permissions::from_mode(mode & wanted)) {
        Ok(()) => {
            tracing::info!("other users could open {shown} (mode {mode:o}); now only this one can")
        }
        Err(error) => tracing::warn!(
            "other users can open {shown} (mode {mode:o}), and that cannot be changed: {error}; \
             type `chmod {wanted:o} {shown}`"
        ),
    }
}

/// The data folder, which this process has taken.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Names the option whose value is wrong.
fn of_flag<T>(flag: &'static str, value: Result<T, SettingError>) -> Result<T, ConfigError> {
    value.map_err(|why| ConfigError::Setting { flag, why })
}

fn read_token(token: Option<String>) -> Result<Option<String>, SettingError> {
    let Some(token) = token else {
        return Ok(None);
    };
    match token::read(&token) {
        Ok(Some(token)) => Ok(Some(token)),
        Ok(None) | Err(_) => Err(SettingError::Token),
    }
}

fn read_address(text: &str) -> Result<BucketAddress, SettingError> {
    Ok(BucketAddress::parse(text)?)
}

fn read_time(text: &str) -> Result<Duration, SettingError> {
    let us = parse_duration_us(text).map_err(|error| SettingError::Time(error.to_string()))?;
    Ok(Duration::from_micros(us))
}

fn read_listen(text: &str) -> Result<SocketAddr, SettingError> {
    let wrong = |why: String| SettingError::Listen {
        text: text.to_owned(),
        why,
    };
    let mut addresses = text
        .to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?;
    addresses
        .next()
        .ok_or_else(|| wrong("the name leads nowhere".into()))
}

fn read_durability(text: &str) -> Result<Durability, SettingError> {
    if text == "sync" {
        return Ok(Durability::Sync);
    }
    let wrong = || SettingError::Durability(text.to_owned());
    let ms = text.strip_prefix("interval:").ok_or_else(wrong)?;
    let ms = ms.strip_suffix("ms").unwrap_or(ms);
    let ms: u64 = ms.parse().map_err(|_| wrong())?;
    if !(1..=60_000).contains(&ms) {
        return Err(wrong());
    }
    Ok(Durability::Interval(Duration::from_millis(ms)))
}

fn read_keep(text: &str) -> Result<Keep, SettingError> {
    let mut time = None;
    let mut count = None;
    for part in text.split(',').map(str::trim) {
        let is_twice = if let Ok(number) = part.parse::<u64>() {
            count.replace(number).is_some()
        } else {
            let us = parse_duration_us(part).map_err(|_| SettingError::Keep(part.to_owned()))?;
            time.replace(Duration::from_micros(us)).is_some()
        };
        if is_twice {
            return Err(SettingError::KeepTwice(text.to_owned()));
        }
    }
    // A limit that is not typed is none: `--keep 1000` keeps a thousand, however old they are.
    Ok(Keep {
        time: time.unwrap_or(Duration::MAX),
        count: count.unwrap_or(u64::MAX),
    })
}

/// Writes a new token: 128 random bits from the system's source, as 32 hexadecimal digits. Only
/// this user can read the file.
fn write_new_token(path: &Path) -> io::Result<String> {
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
            cache_mb: 1,
            grace: "30s".into(),
        }
    }

    #[test]
    fn settings_are_read_or_told_what_is_wrong() {
        assert_eq!(
            read_durability("interval:50").unwrap(),
            Durability::Interval(Duration::from_millis(50))
        );
        assert_eq!(
            read_durability("interval:50").unwrap().to_string(),
            "interval:50"
        );
        assert_eq!(read_keep("7d,1000000").unwrap(), Keep::default());
        assert_eq!(
            read_keep("5").unwrap(),
            Keep {
                time: Duration::MAX,
                count: 5
            }
        );
        assert_eq!(read_keep("2h").unwrap().time, Duration::from_secs(7_200));
        for bad in [
            "async",
            "interval:",
            "interval:0",
            "interval:x",
            "interval:99999999",
        ] {
            assert!(read_durability(bad).unwrap_err().to_string().contains(bad));
        }
        for bad in ["", "7x", "1,2", "1d,2d"] {
            assert!(read_keep(bad).is_err(), "{bad}");
        }
        for bad in ["3232", "127.0.0.1", "127.0.0.1:x", ""] {
            assert!(
                read_listen(bad)
                    .unwrap_err()
                    .to_string()
                    .contains("127.0.0.1:3232"),
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
        local.make_token().unwrap();
        assert_eq!((local.token.clone(), local.invitation(1)), (None, None));
        let mut config = MasterConfig::new(args("0.0.0.0:0", scratch.path())).unwrap();
        config.make_token().unwrap();
        let token = config.token.clone().unwrap();
        assert!(token.len() == 32 && token.bytes().all(|b| b.is_ascii_hexdigit()));
        let mode = fs::metadata(scratch.path().join("token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut again = MasterConfig::new(args("0.0.0.0:0", scratch.path())).unwrap();
        again.make_token().unwrap();
        assert_eq!(again.token, Some(token.clone()));
        let host = own_address().map_or("ADDRESS".to_owned(), |ip| ip.to_string());
        assert_eq!(
            again.invitation(99),
            Some(Invitation {
                line: format!("taskmaster runner --url ws://{host}:99 --token {token}"),
                lacks_address: host == "ADDRESS",
            })
        );
        let mut named = MasterConfig::new(args("[fd00::5]:0", scratch.path())).unwrap();
        named.make_token().unwrap();
        let invitation = named.invitation(99).unwrap();
        assert!(
            invitation.line.contains("ws://[fd00::5]:99 "),
            "{invitation:?}"
        );
        assert!(!invitation.lacks_address);
    }

    #[test]
    fn a_machine_without_a_default_route_has_an_address_in_its_own_networks() {
        let number = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let routes = format!(
            "Iface\tDestination\tGateway\neth0\t{}\t0\neth0\t{}\t0\neth1\t{}\t0\n",
            number([0, 0, 0, 0]),
            number([10, 1, 2, 0]),
            number([192, 168, 7, 0])
        );
        let found: Vec<Ipv4Addr> = neighbours(&routes).collect();
        assert_eq!(
            found,
            [Ipv4Addr::new(10, 1, 2, 1), Ipv4Addr::new(192, 168, 7, 1)]
        );
        assert_eq!(neighbours("").count(), 0);
    }

    #[test]
    fn only_its_user_enters_a_data_folder_and_reads_its_token() {
        let scratch = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let data = scratch.path().join("new/data");
        drop(lock_data(&data).unwrap());
        assert_eq!(mode(&data), 0o700);
        // A folder of an earlier version, and a token that somebody has copied there.
        fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
        fs::write(data.join("token"), "abc").unwrap();
        fs::set_permissions(data.join("token"), Permissions::from_mode(0o644)).unwrap();
        let mut config = MasterConfig::new(args("0.0.0.0:0", &data)).unwrap();
        drop(config.lock_data().unwrap());
        config.make_token().unwrap();
        assert_eq!((mode(&data), mode(&data.join("token"))), (0o700, 0o600));
        assert_eq!(config.token.as_deref(), Some("abc"));
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

use crate::limiter::Limiter;
use crate::password::verify;
use crate::{
    AclError, Authenticator, Authorizer, ConnectInfo, Decision, LoginLimit, Permissions, Principal, Refusal, Rules,
    Users, UsersError,
};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use base_types::TenantId;
use bytes::Bytes;
use bytestring::ByteString;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// Logins that wait for a thread at the same time; more are told to come back.
const WAITING_MAX: usize = 1024;

/// Whether clients without a user name are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// No.
    Never,
    /// From this machine.
    #[default]
    OnlyLoopback,
    /// From everywhere.
    Always,
}

/// What [`Access`] is made of.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// User names and password hashes, see [`Users`].
    pub users_file: Option<PathBuf>,
    /// Rules, see [`Rules`].
    pub acl_file: Option<PathBuf>,
    /// Clients without a user name.
    pub anonymous: Anonymous,
    /// Password hashes that are computed at the same time; 0: one for every second core.
    pub parallelism: usize,
    /// How long a login may take until it is refused.
    pub timeout: Duration,
    /// How many failures a source may have.
    pub limit: LoginLimit,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            users_file: None,
            acl_file: None,
            anonymous: Anonymous::default(),
            parallelism: 0,
            timeout: Duration::from_secs(5),
            limit: LoginLimit::default(),
        }
    }
}

/// A file of users or rules is not usable.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The users.
    #[error("users file {path}: {source}", path = path.display())]
    Users {
        /// Which.
        path: PathBuf,
        /// Why.
        source: UsersError,
    },
    /// The rules cannot be read.
    #[error("rules file {path}: {source}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The rules are wrong.
    #[error("rules file {path}: {source}", path = path.display())]
    Rules {
        /// Which.
        path: PathBuf,
        /// Why.
        source: AclError,
    },
}

/// The provider that comes with the broker: users and rules from files.
///
/// Without a users file nobody has a password: a user name that a client sends is ignored, and the client is anonymous. With one, a
/// user name must be in it. Without a rules file whoever is let in may do everything except publish to `$…`.
#[derive(Debug)]
pub struct Access {
    config: AccessConfig,
    state: ArcSwap<State>,
    generation: AtomicU64,
    /// What the files looked like when they were last read, and one reload at a time.
    seen: Mutex<Seen>,
    limiter: Limiter,
    hashing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

#[derive(Debug)]
struct State {
    generation: u64,
    users: Option<Users>,
    rules: Option<Rules>,
}

impl Access {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file is missing, unreadable, empty or wrong.
    pub fn open(config: AccessConfig) -> Result<Self, AccessError> {
        let seen = Seen::of(&config);
        let state = read(&config, 1)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let parallelism = if config.parallelism == 0 { cores.div_ceil(2) } else { config.parallelism };
        Ok(Self {
            state: ArcSwap::from_pointee(state),
            generation: AtomicU64::new(1),
            seen: Mutex::new(seen),
            limiter: Limiter::new(config.limit),
            hashing: Arc::new(Semaphore::new(parallelism)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            config,
        })
    }

    /// Reads the files again, both; from then on they hold for new and for present clients. Blocks on the files.
    ///
    /// # Errors
    /// When one of them is not usable; then everything stays as it was.
    pub fn reload(&self) -> Result<(), AccessError> {
        let mut seen = self.seen.lock();
        // Looked at before they are read: a change in between is seen next time.
        *seen = Seen::of(&self.config);
        let generation = self.generation.load(Ordering::Acquire) + 1;
        self.state.store(Arc::new(read(&self.config, generation)?));
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }

    /// [`Access::reload`] when a file has changed since it was last looked at; whether it had. Blocks on the files.
    ///
    /// # Errors
    /// As for [`Access::reload`]; told once, until a file changes again.
    pub fn reload_if_changed(&self) -> Result<bool, AccessError> {
        if *self.seen.lock() == Seen::of(&self.config) {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    fn anonymous(&self, info: &ConnectInfo) -> Result<Option<ByteString>, Refusal> {
        let allowed = match self.config.anonymous {
            Anonymous::Never => false,
            Anonymous::OnlyLoopback => info.peer.to_canonical().is_loopback(),
            Anonymous::Always => true,
        };
        if allowed { Ok(None) } else { Err(Refusal::AnonymousNotAllowed) }
    }

    async fn login(
        &self,
        users: &Users,
        name: &ByteString,
        password: &Bytes,
        info: &ConnectInfo,
    ) -> Result<Option<ByteString>, Refusal> {
        if self.limiter.is_out(info.peer, Instant::now()) {
            return Err(Refusal::TooManyFailures);
        }
        let known = users.hash(name);
        // For a name that nobody has somebody's hash is checked, so that time does not tell who exists.
        let (known, hash) = (known.is_some(), known.or_else(|| users.any_hash()).unwrap_or_default().to_owned());
        let password = password.clone();
        let _place = self.waiting.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let hashing = self.hashing.clone();
        let check = async move {
            // The permit goes with the work: what is too late still counts until it ends.
            let permit = hashing.acquire_owned().await.map_err(|_| Refusal::Unavailable)?;
            let work = tokio::task::spawn_blocking(move || {
                let matches = verify(&password, &hash);
                drop(permit);
                matches
            });
            work.await.map_err(|_| Refusal::Unavailable)
        };
        let matches = tokio::time::timeout(self.config.timeout, check).await.map_err(|_| Refusal::Unavailable)??;
        if matches && known {
            return Ok(Some(ByteString::from(name.to_string())));
        }
        self.limiter.failed(info.peer, Instant::now());
        Err(Refusal::BadCredentials)
    }

    async fn decide(&self, info: &ConnectInfo) -> Result<Option<ByteString>, Refusal> {
        if info.exchange.is_some() {
            return Err(Refusal::BadAuthenticationMethod);
        }
        let state = self.state.load_full();
        let user = match (&state.users, &info.username) {
            (Some(users), Some(name)) => {
                let empty = Bytes::new();
                self.login(users, name, info.password.as_ref().unwrap_or(&empty), info).await?
            }
            _ => self.anonymous(info)?,
        };
        let rules = state.rules.as_ref();
        if rules.is_none_or(|rules| rules.may_connect(&info.client_id, user.as_deref())) {
            Ok(user)
        } else {
            Err(Refusal::NotAuthorized)
        }
    }
}

#[async_trait]
impl Authenticator for Access {
    async fn authenticate(&self, info: &ConnectInfo) -> Decision {
        match self.decide(info).await {
            Ok(user) => Decision::Accept { tenant: TenantId::default(), user, data: None, response_information: None },
            Err(refusal) => Decision::Refuse(refusal),
        }
    }
}

impl Authorizer for Access {
    fn permissions(&self, principal: &Principal) -> Permissions {
        let state = self.state.load();
        let user = principal.user.as_deref();
        let gone = user.is_some_and(|user| state.users.as_ref().is_none_or(|users| users.hash(user).is_none()));
        match &state.rules {
            _ if gone => Permissions::nothing(state.generation),
            Some(rules) => rules.compile(principal, state.generation),
            None => Permissions::everything(state.generation),
        }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

fn read(config: &AccessConfig, generation: u64) -> Result<State, AccessError> {
    let users = |path: &PathBuf| match Users::read(path) {
        Ok(users) if users.is_empty() => Err(AccessError::Users { path: path.clone(), source: UsersError::Empty }),
        Ok(users) => Ok(users),
        Err(source) => Err(AccessError::Users { path: path.clone(), source }),
    };
    let rules = |path: &PathBuf| {
        let text =
            std::fs::read_to_string(path).map_err(|source| AccessError::Unreadable { path: path.clone(), source })?;
        Rules::parse(&text).map_err(|source| AccessError::Rules { path: path.clone(), source })
    };
    Ok(State {
        generation,
        users: config.users_file.as_ref().map(users).transpose()?,
        rules: config.acl_file.as_ref().map(rules).transpose()?,
    })
}

/// What tells that a file is another one: time, size and, where there is one, the number of its inode.
#[derive(Debug, PartialEq, Eq)]
struct Seen([Option<(Option<SystemTime>, u64, u64)>; 2]);

impl Seen {
    fn of(config: &AccessConfig) -> Self {
        let look = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            #[cfg(unix)]
            let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
            #[cfg(not(unix))]
            let inode = 0;
            Some((metadata.modified().ok(), metadata.len(), inode))
        };
        Self([&config.users_file, &config.acl_file].map(|path| path.as_deref().and_then(look)))
    }
}

#[cfg(test)]
#[path = "access_test.rs"]
mod access_test;

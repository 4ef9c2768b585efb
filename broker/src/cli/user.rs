use super::{CliError, password};
use clap::{Args, Subcommand};
use mqtt_auth::{HashCost, Users, UsersError, hash_password};
use std::io;
use std::path::PathBuf;

/// Keep a file of users and their password hashes (argon2id), for auth.usersFile
#[derive(Args, Debug)]
#[command(after_help = "A password is asked for at the terminal, or read from one line of standard input.
A running node notices that the file has changed.

Examples:
  hermod user add --file conf/users.txt ann
  pwgen 20 1 | hermod user passwd --file conf/users.txt ann
  hermod user list --file conf/users.txt")]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user; the file is made when it is missing
    Add(NewPassword),
    /// Give a user another password
    Passwd(NewPassword),
    /// Remove a user
    Remove(User),
    /// Print the names of all users
    List {
        /// File of users
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
struct User {
    /// File of users
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Name of the user
    name: String,
}

#[derive(Args, Debug)]
struct NewPassword {
    #[command(flatten)]
    user: User,
    /// Take the password from this file
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Runs `hermod user`.
///
/// # Errors
/// When the file, the name or the password cannot be used; the file is then as it was.
pub fn run_user(args: &UserArgs) -> Result<(), CliError> {
    match &args.command {
        UserCommand::Add(new) => {
            let mut users = match Users::read(&new.user.file) {
                Err(UsersError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Users::default(),
                other => other.map_err(in_file(&new.user.file))?,
            };
            if users.hash(&new.user.name).is_some() {
                return Err(in_file(&new.user.file)(UsersError::Exists(new.user.name.clone())));
            }
            let hash = hash(new)?;
            edit(&new.user, &mut users, |users| users.add(&new.user.name, &hash))?;
            println!("added {:?} to {}", new.user.name, new.user.file.display());
        }
        UserCommand::Passwd(new) => {
            let mut users = read(&new.user)?;
            if users.hash(&new.user.name).is_none() {
                return Err(in_file(&new.user.file)(UsersError::Missing(new.user.name.clone())));
            }
            let hash = hash(new)?;
            edit(&new.user, &mut users, |users| users.change(&new.user.name, &hash))?;
            println!("changed the password of {:?} in {}", new.user.name, new.user.file.display());
        }
        UserCommand::Remove(user) => {
            let mut users = read(user)?;
            edit(user, &mut users, |users| users.remove(&user.name))?;
            println!("removed {:?} from {}", user.name, user.file.display());
            if users.is_empty() {
                eprintln!("warning: nobody is left in it; a node refuses such a file");
            }
        }
        UserCommand::List { file } => {
            for name in Users::read(file).map_err(in_file(file))?.names() {
                println!("{name}");
            }
        }
    }
    Ok(())
}

fn hash(new: &NewPassword) -> Result<String, CliError> {
    let password = password::new_password(new.password_file.as_deref())?;
    Ok(hash_password(password.expose().as_bytes(), HashCost::default())?)
}

fn read(user: &User) -> Result<Users, CliError> {
    Users::read(&user.file).map_err(in_file(&user.file))
}

fn edit(
    user: &User,
    users: &mut Users,
    change: impl FnOnce(&mut Users) -> Result<(), UsersError>,
) -> Result<(), CliError> {
    change(users).and_then(|()| users.write(&user.file)).map_err(in_file(&user.file))
}

fn in_file(path: &std::path::Path) -> impl Fn(UsersError) -> CliError {
    let path = path.to_owned();
    move |source| CliError::Users { path: path.clone(), source }
}

//! `mcpctl backup`: saved from any node, verified without one, restored through any.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use mcp_api::backup::{
    Check, Header, ListedBody, PART_BYTES_MAX, RestoreBody, RestorePart, RestorePartBody, RestoreRequest, TABLES, noun,
};
use mcp_api::problem::Code;
use mcp_api::show_time;
use mcp_api::write::{Removed, Written};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Api, random_id};
use crate::args::{Backup, Format, Global, OutputArg, RestoreArgs, SaveArgs, VerifyArgs};
use crate::failure::{Exit, Failure};
use crate::receipts::Report;
use crate::{out, show};

/// Names that are listed before it is said how many more there are.
const NAMES_SHOWN: usize = 20;

pub(crate) async fn backup(global: &Global, verb: &Backup) -> Result<Exit, Failure> {
    match verb {
        Backup::Save(args) => save(global, args).await,
        Backup::Verify(args) => verify(args),
        Backup::Restore(args) => restore(global, args).await,
    }
}

/// Beside its place first, so that there is never half a backup under its name.
async fn save(global: &Global, args: &SaveArgs) -> Result<Exit, Failure> {
    let name = args.file.display().to_string();
    let what = format!("save a backup to {name:?}");
    let failed = |why: String| Failure::new(format!("cannot {what}"), why).next(format!("ls -l {name}"));
    if args.file.exists() {
        return Err(Failure::usage(format!("cannot {what}"), "the file exists")
            .next("mcpctl backup save \"$(date +%FT%H%M%S).backup\""));
    }
    let mut beside = args.file.clone().into_os_string();
    beside.push(".part");
    let beside = Path::new(&beside);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(beside)
        .map_err(|error| failed(error.to_string()))?;
    let mut check = Check::default();
    let api = Api::of(global)?;
    let took = api.download(&what, "backup", |bytes| {
        check.push(bytes).map_err(|damage| damage.to_string())?;
        file.write_all(bytes).map_err(|error| error.to_string())
    });
    let kept = match took.await {
        Err(failure) => Err(failure),
        Ok(()) => check
            .finish()
            .map_err(|damage| failed(format!("what arrived is not whole: {damage}")))
            .and_then(|header| {
                let kept = file.sync_all().and_then(|()| std::fs::rename(beside, &args.file));
                kept.map(|()| header).map_err(|error| failed(error.to_string()))
            }),
    };
    let header = kept.inspect_err(|_| {
        // Half a backup is of no use; that it stays behind is no harm either.
        let _removed = std::fs::remove_file(beside);
    })?;
    say(&header, &args.output, &format!("backup {name:?} saved"))?;
    if header.count(mcp_api::backup::TABLES[5]) > 0 {
        eprintln!("its secrets are sealed: keep data.key of one node somewhere else, or nobody can open them");
    }
    Ok(Exit::Done)
}

fn verify(args: &VerifyArgs) -> Result<Exit, Failure> {
    let name = args.file.display().to_string();
    let (header, _) = judge(&args.file, "verify")?;
    say(&header, &args.output, &format!("backup {name:?} is whole"))?;
    Ok(Exit::Done)
}

/// Reads all of a backup, and gives what it says of itself and its head as it stands there.
fn judge(path: &Path, verb: &str) -> Result<(Header, Vec<u8>), Failure> {
    let name = path.display().to_string();
    let what = format!("cannot {verb} backup {name:?}");
    let unread = |error: std::io::Error| Failure::new(what.clone(), error.to_string()).next(format!("ls -l {name}"));
    let mut file = BufReader::new(File::open(path).map_err(unread)?);
    let mut check = Check::default();
    let mut piece = vec![0; PART_BYTES_MAX];
    let damaged = |damage: mcp_api::backup::Damage| {
        Failure::new(what.clone(), damage.to_string()).next("use another copy of it, or another backup")
    };
    loop {
        let read = file.read(&mut piece).map_err(unread)?;
        if read == 0 {
            break;
        }
        check.push(&piece[..read]).map_err(damaged)?;
    }
    let head = check.head().unwrap_or_default().to_vec();
    Ok((check.finish().map_err(damaged)?, head))
}

fn describe(header: &Header) -> Value {
    let counts = TABLES.map(|table| (noun(table).to_owned(), json!(header.count(table))));
    json!({
        "cluster": header.cluster_id.to_string(),
        "index": header.index.to_string(),
        "takenAt": show_time(header.taken_ms),
        "program": header.program,
        "bodyBytes": header.body_bytes,
        "sha256": header.body_sha256.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "holds": serde_json::Map::from_iter(counts),
    })
}

fn say(header: &Header, output: &OutputArg, line: &str) -> Result<(), Failure> {
    match output.output {
        Format::Json | Format::Yaml | Format::JsonPath(_) => show::other(output.output, &describe(header)),
        Format::Name => {
            out::line(&format!("backup/{}", header.index));
            Ok(())
        }
        Format::Table | Format::Wide => {
            let held = TABLES.map(|table| format!("{} {}", header.count(table), noun(table)));
            out::line(line);
            show::pairs(&[
                ("Cluster", header.cluster_id.to_string()),
                ("Index", header.index.to_string()),
                ("Taken", show_time(header.taken_ms)),
                ("By", header.program.clone()),
                ("Holds", held.join(", ")),
            ]);
            Ok(())
        }
    }
}

/// Verified here first, then laid down in the cluster piece by piece, and restored by one change.
async fn restore(global: &Global, args: &RestoreArgs) -> Result<Exit, Failure> {
    let name = args.file.display().to_string();
    let what = format!("restore backup {name:?}");
    let (_, head) = judge(&args.file, "restore")?;
    let api = Api::of(global)?.waiting(&args.waiting);
    let id = args.id.clone().map_or_else(random_id, Ok)?;
    let request = RestoreRequest {
        head: BASE64.encode(&head),
        revive_tokens: args.revive_tokens,
        other_cluster: args.other_cluster,
        dry_run: args.dry_run,
    };
    // Whoever asks again may find that it was carried out.
    if args.id.is_some()
        && let Some(answer) = finish(&api, &what, &id, &request).await?
    {
        return report(args, &id, answer);
    }
    lay_down(&api, &what, &id, &args.file, head.len())
        .await
        .map_err(|failure| again(failure, args, &id))?;
    let finished = finish(&api, &what, &id, &request).await;
    if args.dry_run
        || finished
            .as_ref()
            .is_err_and(|failure| failure.exit() != Exit::Uncertain)
    {
        let forget = format!("backup/restores/{id}");
        let forgotten: Result<Answer<Written<Removed>>, Failure> = api
            .write("forget the pieces", Method::DELETE, &forget, &json!({}))
            .await;
        if forgotten.is_err() {
            eprintln!("note: its pieces stay in the cluster until the next restore");
        }
    }
    match finished.map_err(|failure| again(failure, args, &id))? {
        Some(answer) => report(args, &id, answer),
        None => {
            let why = "another restore began meanwhile and took the place of this one";
            Err(Failure::new(format!("cannot {what}"), why).next(format!("mcpctl backup restore {name}")))
        }
    }
}

/// After an unknown outcome the same restore is asked for again, not another one.
fn again(failure: Failure, args: &RestoreArgs, id: &str) -> Failure {
    if failure.exit() != Exit::Uncertain {
        return failure;
    }
    failure.next(format!("{} (safe to repeat)", repeated(args, id)))
}

fn repeated(args: &RestoreArgs, id: &str) -> String {
    let mut line = format!("mcpctl backup restore {} --id {id}", args.file.display());
    for (given, flag) in [
        (args.revive_tokens, " --revive-tokens"),
        (args.other_cluster, " --other-cluster"),
    ] {
        line.push_str(if given { flag } else { "" });
    }
    line
}

async fn lay_down(api: &Api, what: &str, id: &str, path: &Path, head_bytes: usize) -> Result<(), Failure> {
    let unread = |error: std::io::Error| {
        Failure::new(format!("cannot {what}"), error.to_string()).next(format!("ls -l {}", path.display()))
    };
    let mut file = File::open(path).map_err(unread)?;
    file.read_exact(&mut vec![0; head_bytes]).map_err(unread)?;
    for part in 0.. {
        let mut bytes = Vec::new();
        let most = u64::try_from(PART_BYTES_MAX).unwrap_or(u64::MAX);
        (&mut file).take(most).read_to_end(&mut bytes).map_err(unread)?;
        if bytes.is_empty() {
            break;
        }
        let piece = RestorePart {
            part,
            data: BASE64.encode(&bytes),
        };
        let path = format!("backup/restores/{id}/parts");
        let _laid: Answer<Written<RestorePartBody>> = api.write(what, Method::POST, &path, &piece).await?;
    }
    Ok(())
}

/// `None`: nothing of this restore is laid down.
async fn finish(
    api: &Api,
    what: &str,
    id: &str,
    request: &RestoreRequest,
) -> Result<Option<Answer<Written<RestoreBody>>>, Failure> {
    let path = format!("backup/restores/{id}");
    match api.try_write(what, Method::POST, &path, request).await? {
        Ok(answer) => Ok(Some(answer)),
        Err(problem) if problem.code == Code::NotFound.as_str() => Ok(None),
        Err(problem) => Err(Failure::of_problem(what, &problem)),
    }
}

fn report(args: &RestoreArgs, id: &str, answer: Answer<Written<RestoreBody>>) -> Result<Exit, Failure> {
    let (body, receipt) = (answer.body.object, answer.body.receipt);
    let name = args.file.display().to_string();
    match args.output.output {
        Format::Json | Format::Yaml | Format::JsonPath(_) => {
            let object = &body;
            let receipt = receipt.clone();
            show::other(args.output.output, &Written { object, receipt })?;
        }
        Format::Name => out::line(&format!("restore/{}", body.restore)),
        Format::Table | Format::Wide => {
            let would = if body.dry_run { "would be " } else { "" };
            list(&format!("tokens {would}let in again"), &body.revived);
            list(
                &format!("tokens {would}revoked, for the backup does not know them"),
                &body.revoked,
            );
            list("tokens of the backup that stay refused", &body.refused);
            list(
                if body.dry_run {
                    "users who would come back"
                } else {
                    "users who come back"
                },
                &body.users_back,
            );
            if body.sessions_closed > 0 {
                out::line(&format!("sessions {would}closed: {}", body.sessions_closed));
            }
        }
    }
    if body.dry_run {
        eprintln!("nothing was changed");
        return Ok(Exit::Done);
    }
    let report = Report {
        what: format!("backup {name:?} of index {} restored", body.backup_index),
        word: "effective",
        again: repeated(args, id),
        receipt: receipt.as_ref(),
        waited: !args.waiting.no_wait,
    };
    match args.output.output {
        Format::Table | Format::Wide => report.print(),
        Format::Json | Format::Yaml | Format::JsonPath(_) | Format::Name if answer.status == 202 => Ok(Exit::Uncertain),
        Format::Json | Format::Yaml | Format::JsonPath(_) | Format::Name => Ok(Exit::Done),
    }
}

fn list(what: &str, listed: &ListedBody) {
    if listed.count == 0 {
        return;
    }
    let shown: Vec<&str> = listed.names.iter().take(NAMES_SHOWN).map(String::as_str).collect();
    let more = listed.count - u64::try_from(shown.len()).unwrap_or(0);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    out::line(&format!("{what}: {} ({}{more})", listed.count, shown.join(", ")));
}

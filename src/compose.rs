//! `loteria compose`: the `docker-compose.yaml` of a contest. The one in the repository is that of five agencies.

/// The most agencies: a bridge of Linux has room for 1,023 containers, and the server is one.
pub const MAX_AGENCIES: i64 = 1000;
/// Where the agencies' files are unless said otherwise.
pub const DEFAULT_DATA: &str = "./tests/data";

/// What all services have in common, and the server. The agencies follow it.
const HEAD: &str = include_str!("compose_head.yaml");

/// The compose file of that many agencies, whose files are in the folder `data`. With `container_names`, containers are
/// named as their services are.
#[must_use]
pub fn compose_file(agencies: u16, data: &str, container_names: bool) -> String {
    let name = |service: &str| {
        if container_names { format!("    container_name: {service}\n") } else { String::new() }
    };
    // A server of no agency cannot run, so `config.ini` says how many there are.
    let amount = if agencies == 0 { String::new() } else { format!("      CLIENTS_AMOUNT: {agencies}\n") };
    let head = HEAD
        .replace("    # CONTAINER_NAME\n", &name("server"))
        .replace("      # CLIENTS_AMOUNT\n", &amount)
        .replace("AGENCIES", &agencies.to_string());
    let clients = (1..=agencies).map(|id| {
        let name = name(&format!("client{id}"));
        let file = bind_source(data, &format!("agency-{id}.csv"));
        format!(
            "\n  client{id}:\n    <<: *client\n{name}    environment: {{ <<: *agency, CLI_ID: {id} }}\n    volumes:\n      \
             - *config\n      - {{ <<: *file, source: {file}, target: /agency-{id}.csv }}\n"
        )
    });
    [head].into_iter().chain(clients).collect()
}

/// A file of the host as a YAML string. A path that is not absolute begins with `./`, so that it is neither taken for the
/// name of a volume nor `~` for a home, and a dollar is doubled, so that it is not taken for a variable.
fn bind_source(folder: &str, file: &str) -> String {
    let start = if folder.starts_with('/') || folder.starts_with("./") { "" } else { "./" };
    let path = format!("{start}{}/{file}", folder.trim_end_matches('/')).replace('$', "$$");
    // A JSON string is a YAML string too.
    serde_json::Value::String(path).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_waits_for_as_many_agencies_as_there_are_clients() {
        let text = compose_file(12, "bets", false);
        assert!(text.contains("CLIENTS_AMOUNT: 12\n"), "{text}");
        assert_eq!(text.matches("<<: *client").count(), 12);
        assert!(text.contains(r#"source: "./bets/agency-12.csv""#), "{text}");
    }

    #[test]
    fn a_folder_is_a_folder_whatever_its_name() {
        for (folder, source) in [
            ("./data/", r#""./data/f""#),
            ("/srv/a b", r#""/srv/a b/f""#),
            ("/", r#""/f""#),
            ("..", r#""./../f""#),
            ("~x", r#""./~x/f""#),
            ("a$B\": ", r#""./a$$B\": /f""#),
        ] {
            assert_eq!(bind_source(folder, "f"), source);
        }
    }
}

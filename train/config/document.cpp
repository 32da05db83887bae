// The field tables as text for people: `mixtape config --explain KEY` and docs/config.md.
#include "train/config/schema.h"

namespace mixtape {
namespace {

std::string default_of(const Tree& defaults, const std::string& path) {
  const Tree* tree = &defaults;
  for (size_t from = 0; tree && from <= path.size();) {
    const size_t dot = std::min(path.find('.', from), path.size());
    std::string name = path.substr(from, dot - from);
    const bool in_list = name.ends_with("[]");
    if (in_list) name.resize(name.size() - 2);
    tree = tree->find(name);
    if (in_list && tree) tree = tree->items.empty() ? nullptr : &tree->items[0];
    from = dot + 1;
  }
  if (!tree || tree->kind == Tree::map) return "";
  const std::string text = yaml_text(*tree);
  return text;
}

// Every default, with one source so that the keys of data.sources have theirs.
const Tree& defaults() {
  static const Tree tree = [] {
    Config config;
    config.data.sources.resize(1);
    return tree_from_config(config);
  }();
  return tree;
}

std::string alias_text(const Key& key) {
  std::string text;
  for (std::string_view alias : key.aliases.names)
    if (!alias.empty()) text += (text.empty() ? "" : ", ") + std::string(alias);
  return text;
}

// A '|' would end the cell of a table.
std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
  return out;
}

void append_rows(std::string& out, const Key& section, const std::string& path) {
  for (const Key& key : section.keys) {
    const std::string name = joined(path, key.name) + (key.is_list ? "[]" : "");
    if (key.is_section()) {
      append_rows(out, key, name);
      continue;
    }
    std::string meaning = key.help;
    if (const std::string aliases = alias_text(key); !aliases.empty()) meaning += "; also called " + aliases;
    out += fmt::format("| `{}` | {} | `{}` | {} | {} |\n", name, escaped(key.type), default_of(defaults(), name),
                       escaped(meaning), key.on_resume.kind == OnResume::refused ? "refused" : "may change");
  }
}

// The refused keys, grouped by the reason that they share.
void append_refusals(std::string& out, const Key& section, const std::string& path, std::string_view around) {
  for (const Key& key : section.keys) {
    const std::string name = joined(path, key.name);
    const bool refused = key.on_resume.kind == OnResume::refused;
    const bool states_it = refused && key.on_resume.reason != around;
    if (states_it) out += fmt::format("- `{}{}`: {}\n", name, key.is_section() ? ".*" : "", key.on_resume.reason);
    append_refusals(out, key, name, refused ? key.on_resume.reason : around);
    if (!refused && !around.empty()) out += fmt::format("- but `{}` may change\n", name);
  }
}

constexpr std::string_view head = R"(# Configuration

Generated from the field tables of train/config by `scripts/update_docs`; do not edit.

A run is described by YAML files and `key=value` arguments:

    mixtape train configs/quickstart.yaml my_changes.yaml optimizer.lr=1e-3

- Files are composed in their order, then the arguments (`--optimizer.lr=1e-3` means the same). Later ones win, key by
  key; a list replaces a list as a whole. An argument's value is YAML: `data.sources='[{path: data/a}]'`.
- `model.preset: gpt2` puts the values of `configs/presets/gpt2.yaml` below all of them, so each key of `model:` can be
  overridden. Presets are looked for in `presets/` beside the file that names one, in `$MIXTAPE_CONFIG_DIR/presets`, in
  the source tree, and in `share/mixtape/configs/presets` of the installation.
- An unknown key is an error. What other frameworks call a setting is accepted too (`n_embd`, `hidden_size`, ...);
  giving a setting by two names in one file is an error.
- Numbers are decimal (`1e-3`, `65536`); `010`, `0x10`, `1_000`, `.inf` and numbers in quotes are refused, because
  readers of YAML disagree about them. Switches are `true` and `false`, nothing else. A text may stand without quotes
  whatever it looks like. Anchors, aliases, tags and a second document are refused.
- Paths are relative to the directory in which `mixtape` runs.

`mixtape config FILE... [key=value...]` prints the result, `--origins` with the place that each value came from, and
`mixtape config --explain optimizer.lr` explains a key. A run keeps its own in `config.resolved.yaml`.
)";

constexpr std::string_view resume_head = R"(
## What may change on resume

A run that is started again goes on from its newest checkpoint. Its configuration may have changed in the meantime; each
difference is logged with its old and its new value. Learning rate, schedule, length, batch, data, dropout, devices and
everything that is only shown or kept may change: the new value holds from the next step on, and updates, tokens and the
optimizer's state are carried on. Changed `data`, `seed` or batch sizes begin a new data order at the same count of
samples: what was seen before may be seen again. Refused are changes with which the checkpoint could not be read or its
state would mean something else:

)";

}  // namespace

std::string explain_key(std::string_view path) {
  const Key* key = find_key(path);
  if (!key || path.empty()) {
    const size_t dot = path.rfind('.');
    const Key* section = dot == path.npos ? &schema() : find_key(path.substr(0, dot));
    const std::string_view name = dot == path.npos ? path : path.substr(dot + 1);
    throw ConfigError("{}: unknown key{}", path, suggestion(name, section ? *section : schema()));
  }
  std::string text = fmt::format("{}\n  {}\n", path, key->help);
  if (key->is_section()) {
    for (const Key& below : key->keys) text += fmt::format("  {:<22} {}\n", below.name, below.help);
    return text;
  }
  std::string name(path);
  if (const size_t bracket = name.find('['); bracket != name.npos)
    name.replace(bracket, name.find(']', bracket) - bracket + 1, "[]");
  else if (name.starts_with("data.sources."))
    name.insert(name.rfind('.'), "[]");
  const std::string aliases = alias_text(*key);
  const bool refused = key->on_resume.kind == OnResume::refused;
  text += fmt::format("  type       {}\n  default    {}\n", key->type, default_of(defaults(), name));
  if (!aliases.empty()) text += fmt::format("  aliases    {}\n", aliases);
  text += fmt::format("  on resume  {}\n", refused ? fmt::format("refused: {}", key->on_resume.reason) : "may change");
  return text;
}

std::string config_markdown() {
  std::string out(head);
  const std::string columns = "\n| key | type | default | meaning | on resume |\n|---|---|---|---|---|\n";
  out += "\n## Top level\n" + columns;
  Key top;
  for (const Key& key : schema().keys)
    if (!key.is_section()) top.keys.push_back(key);
  append_rows(out, top, "");
  for (const Key& section : schema().keys) {
    if (!section.is_section()) continue;
    std::string help = section.help;
    help[0] = char(std::toupper(help[0]));
    out += fmt::format("\n## {}\n\n{}.\n{}", section.name, help, columns);
    append_rows(out, section, section.name);
  }
  out += resume_head;
  append_refusals(out, schema(), "", "");
  return out;
}

}  // namespace mixtape

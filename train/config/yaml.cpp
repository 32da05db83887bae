// YAML text to a Tree, by the events of yaml-cpp: no node of its own is built, and the depth is known before it grows.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <optional>
#include <sstream>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/config/tree.h"

namespace mixtape {
namespace {

constexpr size_t most_text_bytes = 1 << 20;
constexpr size_t most_levels = 8;
constexpr int most_values = 10000;

class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const Origin& origin) : origin_(origin) {}

  Tree take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    if (expects_key()) fail(mark, "a key is missing before ':'");
    add(made(mark, Tree::null));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse_anchor(mark, 1); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    if (tag != "?" && tag != "!") refuse_tag(mark, tag);
    if (expects_key()) {
      if (open_.back().tree.find(value))
        fail(mark, fmt::format("the key '{}' is given twice (first in line {})", shortened(value),
                               open_.back().tree.find(value)->origin.line));
      open_.back().key = value;
      open_.back().key_line = mark.line + 1;
      return;
    }
    Tree t = made(mark, Tree::scalar);
    t.text = value;
    t.quoted = tag == "!";
    add(std::move(t));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Tree::list);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Tree::map);
  }
  void OnMapEnd() override { close(); }

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& message) const {
    Origin at = origin_;
    at.line = mark.line + 1;
    throw ConfigError("{}: {}", at.text(), message);
  }

 private:
  struct Open {
    Tree tree;
    std::optional<std::string> key;
    int key_line = 0;
  };

  static std::string shortened(const std::string& s) { return s.size() > 60 ? s.substr(0, 60) + "..." : s; }

  bool expects_key() const { return !open_.empty() && open_.back().tree.kind == Tree::map && !open_.back().key; }

  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor)
      fail(mark,
           "anchors and aliases (&name, *name) are not read; repeat the value, or put it in quotes if it is a text");
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    fail(mark, fmt::format("the tag '{}' is not read; the setting's own type decides", shortened(tag)));
  }

  Tree made(const YAML::Mark& mark, Tree::Kind kind) {
    if (++values_ > most_values) fail(mark, fmt::format("more than {} values; this is no configuration", most_values));
    Tree t;
    t.kind = kind;
    t.origin = origin_;
    t.origin.line = mark.line + 1;
    return t;
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Tree::Kind kind) {
    refuse_anchor(mark, anchor);
    if (tag != "?" && tag != "!" && !tag.empty()) refuse_tag(mark, tag);
    if (expects_key()) fail(mark, "a key must be a plain text, not a list or a map");
    if (open_.size() == most_levels) fail(mark, fmt::format("nested more than {} levels deep", most_levels));
    open_.push_back({made(mark, kind), {}, 0});
  }

  void close() {
    Tree t = std::move(open_.back().tree);
    open_.pop_back();
    add(std::move(t));
  }

  void add(Tree t) {
    if (open_.empty()) {
      root_ = std::move(t);
    } else if (Open& parent = open_.back(); parent.tree.kind == Tree::list) {
      parent.tree.items.push_back(std::move(t));
    } else {
      t.origin.line = parent.key_line;
      parent.tree.entries.push_back({*std::move(parent.key), std::move(t)});
      parent.key.reset();
    }
  }

  Origin origin_;
  std::vector<Open> open_;
  Tree root_;
  int values_ = 0;
};

void refuse_bad_text(std::string_view text, Origin at) {
  if (text.size() > most_text_bytes)
    throw ConfigError("{}: {} bytes, at most {} are read; this is no configuration",
                      at.source.empty() ? at.text() : at.source, text.size(), most_text_bytes);
  at.line = 1;
  for (size_t i = 0; i < text.size();) {
    const uint8_t c = uint8_t(text[i]);
    const Utf8Char character = utf8_char(text, i);
    if (!character.valid)
      throw ConfigError("{}: not valid UTF-8 (byte 0x{:02x}); save the file as UTF-8", at.text(), c);
    if ((c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7f)
      throw ConfigError("{}: a control character (0x{:02x}); this is no text", at.text(), c);
    if (c == '\n') ++at.line;
    i += character.length;
  }
}

}  // namespace

Tree read_yaml(std::string_view text, const Origin& origin) {
  refuse_bad_text(text, origin);
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // a byte order mark
  TreeBuilder builder(origin);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) {
      Tree empty;
      empty.origin = origin;
      return empty;
    }
    Tree tree = builder.take();
    TreeBuilder second(origin);
    if (parser.HandleNextDocument(second))
      throw ConfigError("{}: a second document begins after '---'; a configuration is one document",
                        origin.source.empty() ? origin.text() : origin.source);
    return tree;
  } catch (const YAML::Exception& e) {
    builder.fail(e.mark, fmt::format("not YAML: {}", e.msg));
  } catch (const ConfigError&) {
    throw;
  } catch (const std::exception& e) {  // yaml-cpp leaks a few of the standard library's for strange input
    builder.fail({}, fmt::format("not YAML: {}", e.what()));
  }
}

const Tree* Tree::find(std::string_view key) const {
  for (const Entry& e : entries)
    if (e.key == key) return &e.value;
  return nullptr;
}

Tree* Tree::find(std::string_view key) { return const_cast<Tree*>(std::as_const(*this).find(key)); }

std::string Tree::shown() const {
  switch (kind) {
    case null:
      return "nothing";
    case scalar:
      return "'" + (text.size() > 80 ? text.substr(0, 80) + "..." : text) + "'";
    case list:
      return fmt::format("a list of {}", items.size());
    case map:
      return "a map of keys";
  }
  return "";
}

void merge(Tree& below, Tree above) {
  if (below.kind != Tree::map || above.kind != Tree::map) {
    below = std::move(above);
    return;
  }
  for (Entry& e : above.entries) {
    if (Tree* existing = below.find(e.key))
      merge(*existing, std::move(e.value));
    else
      below.entries.push_back(std::move(e));
  }
}

std::string Origin::text() const {
  switch (kind) {
    case by_default:
      return "default";
    case derived:
      return "derived";
    case command_line:
      return "command line";
    case preset:
    case file:
      return line > 0 ? fmt::format("{}:{}", source, line) : source;
  }
  return "";
}

}  // namespace mixtape

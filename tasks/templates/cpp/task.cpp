// Counts what a regular expression matches in a text.
//
// params: {"pattern": "[A-Z][a-z]+", "text": "Anna met Otto, and Otto met Ida."}
// result: {"matches": 4, "counts": {"Anna": 1, "Ida": 1, "Otto": 2}}
#include "taskmaster.h"

#include <map>
#include <regex>
#include <string>

static int task(const char *params) {
  char *pattern = task_text(params, "pattern"), *text = task_text(params, "text");
  if (!pattern) return task_fail(TASK_PERMANENT, "pattern: a regular expression is missing");
  if (!text) return task_fail(TASK_PERMANENT, "text: a text is missing");
  // There are no exceptions here: a pattern that is none aborts, which is a trap.
  std::regex regex(pattern, std::regex::ECMAScript | std::regex::optimize);
  std::map<std::string, int> counts;
  int matches = 0;
  const std::string in(text);
  for (std::sregex_iterator next(in.begin(), in.end(), regex), end; next != end; ++next, ++matches) counts[next->str()]++;
  task_result("{\"matches\":%d,\"counts\":{", matches);
  const char *comma = "";
  for (const auto &[word, count] : counts) {
    task_result("%s", comma);
    task_result_text(word.data(), word.size());
    task_result(":%d", count);
    comma = ",";
  }
  task_result("}}");
  return TASK_DONE;
}

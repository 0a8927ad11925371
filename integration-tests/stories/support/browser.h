// SPDX-License-Identifier: Apache-2.0
//
// A real browser without a screen, driven as a person would drive it: Debian's Chromium through its chromedriver, by
// the WebDriver protocol (https://www.w3.org/TR/webdriver2/). Both run beside the guest (guest/run --browser), because
// in an emulated machine they take minutes for what takes seconds; the gateway that is looked at is the guest's.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "support/http.h"
#include "support/process.h"

namespace aw::stories {

enum class Scheme { kLight, kDark };

class Browser {
 public:
  /// Starts a browser, for whom http://127.0.0.1:8787 is the guest's. One is enough for a program of stories.
  Browser();
  Browser(const Browser&) = delete;
  Browser& operator=(const Browser&) = delete;
  ~Browser();

  /// "" where all is well; a browser that is gone doesn't come back.
  const std::string& problem() const { return problem_; }

  void open(const std::string& url);
  void reload();
  std::string url();

  /// Runs a function body in the page: `arguments[0]` and so on are what is given, `return` gives back.
  Json run(const std::string& script, const Json& arguments = Json::array());
  /// The same for what calls back: its last argument is the function to be called with the result.
  Json run_async(const std::string& script, const Json& arguments = Json::array());
  /// Waits until the function body returns something true.
  bool await(const std::string& script, const Json& arguments = Json::array(), Span patience = kPatience);

  /// A click, keys and so on reach the page as from a mouse and a keyboard. The element is the first that CSS finds.
  bool click(const std::string& css);
  bool type(const std::string& css, const std::string& text);  ///< in place of what is there
  void press(const std::string& keys);                         ///< on what has the focus; WebDriver's codes for keys
  /// Draws the mouse from one part of an element's width (0 to 1) to another, at half its height, and then out of the
  /// way.
  bool drag(const std::string& css, double from, double to);
  /// What it is called and what it is, for who doesn't see it.
  std::string name_of(const std::string& css);
  std::string role_of(const std::string& css);

  void set_scheme(Scheme scheme);
  /// Of the page, in CSS pixels; a phone has touch and a small width.
  void set_size(int width, int height, bool phone = false);
  /// What is in sight, as FILE.png; where the page is higher, its end as FILE-end.png.
  void take_picture(const std::string& file);

  /// Errors and warnings of the console since this was last asked.
  std::vector<std::string> complaints();

 private:
  /// The "value" of the answer; what went wrong is a failure of the story, and null.
  Json command(const std::string& method, const std::string& path, const Json& body = Json::object());
  Json devtools(const std::string& method, const Json& parameters);
  std::string find(const std::string& css);
  void save_sight(const std::string& file);

  std::string driver_;   ///< its address
  std::string session_;  ///< "" where there is none
  std::string problem_;
  std::unique_ptr<Child> relay_;
};

}  // namespace aw::stories

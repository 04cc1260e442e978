<?php

declare(strict_types=1);

require __DIR__ . '/push.php';

session_set_cookie_params(['httponly' => true, 'samesite' => 'Lax']);
session_start();
// For document.domain, on every page; see docs/security.rst.
header('Origin-Agent-Cluster: ?0');

$do = $_SERVER['REQUEST_METHOD'] === 'POST' ? $_POST['do'] ?? '' : '';
if ($do === 'log in' && preg_match('/\A[a-z]{1,20}\z/', $_POST['user'] ?? '')) {
    session_regenerate_id(true);
    $_SESSION['user'] = $_POST['user'];
}
if ($do === 'save' && isset($_SESSION['user'])) {
    // Here a CMS saves to its database. It publishes after that, never before.
    push()->publish('news', ['user' => $_SESSION['user'], 'text' => (string) ($_POST['text'] ?? '')]);
}
if ($do === 'log out') {
    // While there still is a session.
    push()->revoke(sessionId: session_id());
    session_destroy();
}
if ($do !== '') {
    header('Location: /index.php', true, 303);
    exit;
}
$user = $_SESSION['user'] ?? null;
$server = htmlspecialchars(push()->url() ?? '');
?>
<!doctype html>
<meta charset="utf-8">
<title>Plain PHP</title>
<form method="post">
<?php if ($user === null) : ?>
  <input name="user" value="alice" aria-label="Name">
  <button name="do" value="log in">Log in</button>
<?php else : ?>
  <p>You are <?= htmlspecialchars($user) ?>.</p>
  <input name="text" aria-label="News">
  <button name="do" value="save">Publish</button>
  <button name="do" value="log out">Log out</button>
<?php endif ?>
</form>
<ul id="news" aria-live="polite"></ul>
<?php if ($user !== null && $server !== '') : ?>
<script src="/push.js"></script>
<script>
  const push = Push.connect({ server: "<?= $server ?>", token: "/token.php" });
  push.subscribe("news", (data) => {
    const item = document.createElement("li");
    item.textContent = `${data.user}: ${data.text}`;
    document.getElementById("news").append(item);
  });
  push.on("reset", () => location.reload());
  push.on("revoked", () => location.assign(new URL("/index.php", location.origin)));
</script>
<?php endif ?>

/* Linked into the static binary of a release: host names come from /etc/hosts and DNS, whatever /etc/nsswitch.conf says.
 *
 * A glibc inside a binary can do these two by itself. For any other service it would load a library of this machine,
 * which another glibc was built for: on a Debian 13 with libnss-resolve, a binary made on Debian 12 died of that. */
extern int __nss_configure_lookup(const char *database, const char *services);

__attribute__((constructor)) static void look_up_hosts_without_libraries(void) {
  __nss_configure_lookup("hosts", "files dns");
}

# Printed by `tsenv activate` for tcsh, on one line: eval "`tsenv activate --shell tcsh`". PATH is edited by tsenv.
setenv TSENV_SESSION @NAME@
setenv TSENV_DIR @SESSION@
setenv TSENV_BIN @BIN@
setenv TSENV_PROMPT @PROMPT@
setenv TSENV_AUTO @AUTO@
setenv PATH @PATH@
alias tsenv_deactivate @DEACTIVATE@
rehash

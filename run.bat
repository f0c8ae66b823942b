@echo off
rem The web interface on http://127.0.0.1:7860; sets up .venv on the first start: run.bat
setlocal
cd /d "%~dp0"
call tools\setup.bat requirements.txt
if %errorlevel% neq 0 exit /b %errorlevel%
.venv\Scripts\python.exe -m ui.app %*
exit /b %errorlevel%
